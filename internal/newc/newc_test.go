package newc

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// contents reads the members of an archive, in a line for each.
func contents(data []byte) (lines []string, err error) {
	for r := NewReader(bytes.NewReader(data)); ; {
		m, err := r.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		var text strings.Builder
		if _, err := m.WriteTo(&text); err != nil {
			return lines, err
		}
		lines = append(lines, m.Name+" "+text.String())
	}
}

func FuzzReader(f *testing.F) {
	member := func(name, text string) string {
		pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
		return pad(fmt.Sprintf("070701%048X%08X%032X%08X%08X%s\x00", 0, len(text), 0, len(name)+1, 0, name)) + pad(text)
	}
	whole := member("etc", "") + member("key", "secret") + member(cpio.Trailer, "")
	f.Add([]byte(whole))
	f.Add([]byte(member(cpio.Trailer, "")))
	f.Add([]byte(strings.Replace(member("key", "secret"), "00000004", "FFFFFFFF", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := contents(data)
		for _, line := range lines {
			if _, text, _ := strings.Cut(line, " "); err == nil && !bytes.Contains(data, []byte(text)) {
				t.Errorf("%q comes out of nowhere", text)
			}
		}
	})
	if got, err := contents([]byte(whole)); err != nil || !slices.Equal(got, []string{"etc ", "key secret"}) {
		f.Errorf("%q, %v", got, err)
	}
	for end := range whole {
		if got, err := contents([]byte(whole[:end])); err == nil {
			f.Errorf("%q from %d bytes of %d", got, end, len(whole))
		}
	}
}
