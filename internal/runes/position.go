package runes

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// BrokenError is why a folder is no proper rune.
type BrokenError struct {
	Rune string // the folder's name
	Err  error  // names the file, and the line where there is one
}

func (e *BrokenError) Error() string { return "rune " + e.Rune + ": " + e.Err.Error() }

func (e *BrokenError) Unwrap() error { return e.Err }

// keyError is what is wrong with the value of a key of rune.toml.
type keyError struct {
	key []string
	err error
}

func (e *keyError) Error() string { return strings.Join(e.key, ".") + ": " + e.err.Error() }

func (e *keyError) Unwrap() error { return e.err }

// at says which key of rune.toml an error is about: parts of the key, and the place in an
// array behind the part that it belongs to, as in at(err, "file", 1, "mode"). What was said before
// of a key is about one inside of this.
func at(err error, key ...any) error {
	if err == nil {
		return nil
	}
	var parts []string
	for _, k := range key {
		if i, ok := k.(int); ok {
			parts[len(parts)-1] += fmt.Sprintf("[%d]", i)
			continue
		}
		parts = append(parts, fmt.Sprint(k))
	}
	var inner *keyError
	if errors.As(err, &inner) {
		return &keyError{append(parts, inner.key...), inner.err}
	}
	return &keyError{parts, err}
}

// inManifest puts file and line before what is wrong with a rune.toml. A key that is not
// there has the line of the table that it is missing from.
func inManifest(data []byte, err error) error {
	var wrong *keyError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	lines := keyLines(text(data))
	for n := len(wrong.key); n > 0; n-- {
		if line := lines[strings.Join(wrong.key[:n], "\n")]; line > 0 {
			return fmt.Errorf("%s:%d: %w", manifestName, line, wrong)
		}
	}
	return fmt.Errorf("%s: %w", manifestName, wrong)
}

// keyLines returns the line of each key of a TOML text: its parts, one a line of the map's
// key, those of arrays with the place in brackets. It goes as far as the text is TOML.
func keyLines(source string) map[string]int {
	k := keyReader{lines: make(map[string]int), tables: make(map[string]int)}
	for i := range len(source) {
		if source[i] == '\n' {
			k.ends = append(k.ends, i)
		}
	}
	k.parser.Reset([]byte(source))
	var table []string
	for k.parser.NextExpression() {
		switch e := k.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = k.table(e)
		case unstable.KeyValue:
			k.value(table, e)
		}
	}
	return k.lines
}

type keyReader struct {
	parser unstable.Parser
	lines  map[string]int
	tables map[string]int // how many of an array there are so far
	ends   []int          // of lines
}

// maxKeyParts is more than any key of rune.toml has.
const maxKeyParts = 8

func (k *keyReader) note(key []string, n *unstable.Node) {
	name := strings.Join(key, "\n")
	if k.lines[name] == 0 {
		before, _ := slices.BinarySearch(k.ends, int(n.Raw.Offset))
		k.lines[name] = before + 1
	}
}

// table reads [a.b] or [[a.b]].
func (k *keyReader) table(e *unstable.Node) []string {
	var key []string
	for it := e.Key(); it.Next() && len(key) < maxKeyParts; {
		key = append(key, string(it.Node().Data))
		name := strings.Join(key, "\n")
		if last := len(key) - 1; e.Kind == unstable.ArrayTable && it.IsLast() {
			key[last] += fmt.Sprintf("[%d]", k.tables[name])
			k.tables[name]++
		} else if n := k.tables[name]; n > 0 {
			key[last] += fmt.Sprintf("[%d]", n-1)
		}
		k.note(key, it.Node())
	}
	return key
}

// value reads a key below the given ones, and those of the tables in its value.
func (k *keyReader) value(above []string, e *unstable.Node) {
	key := append([]string(nil), above...)
	for it := e.Key(); it.Next() && len(key) < maxKeyParts; {
		key = append(key, string(it.Node().Data))
		k.note(key, it.Node())
	}
	if len(key) == maxKeyParts {
		return
	}
	switch v := e.Value(); v.Kind {
	case unstable.InlineTable:
		k.inside(key, v)
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			if it.Node().Kind == unstable.InlineTable {
				element := append([]string(nil), key...)
				element[len(element)-1] += fmt.Sprintf("[%d]", i)
				k.inside(element, it.Node())
			}
		}
	}
}

func (k *keyReader) inside(key []string, table *unstable.Node) {
	for it := table.Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			k.value(key, it.Node())
		}
	}
}
