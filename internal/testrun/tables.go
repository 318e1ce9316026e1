package testrun

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Tables shows the tables that tests left in a directory. A row that is there
// already, as from a test that ran twice, is left out.
func Tables(out io.Writer, dir, suffix string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s:\n", strings.TrimSuffix(filepath.Base(file), suffix))
		shown := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			if !shown[line] {
				io.WriteString(out, line)
			}
			shown[line] = true
		}
	}
	return nil
}
