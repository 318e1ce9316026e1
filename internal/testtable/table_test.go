package testtable

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestRowsOfManyWritersAreWhole(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(DirEnv, dir)
	table := Table{Name: "boots", Columns: []string{"client", "seconds"}}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { table.Add(t, fmt.Sprint("client ", i), i) })
	}
	all.Wait()
	data, err := os.ReadFile(filepath.Join(dir, "boots"+Suffix))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if lines[0] != "| client | seconds |" || lines[1] != "|---|---|" {
		t.Errorf("the head is\n%s\n%s", lines[0], lines[1])
	}
	rows := map[string]bool{}
	for _, l := range lines[2:] {
		rows[l] = true
	}
	for i := range 50 {
		if want := fmt.Sprintf("| client %d | %d |", i, i); !rows[want] {
			t.Errorf("no row %q", want)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files, want the table only", len(files))
	}
}

func TestWithoutADirectoryNothingIsWritten(t *testing.T) {
	t.Setenv(DirEnv, "")
	Table{Name: "boots", Columns: []string{"client"}}.Add(t, "iPXE")
}
