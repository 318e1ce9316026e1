// Package testtable lets tests hand tables of what they found to whoever runs
// them: which client booted, which programs took part, how long a machine took.
//
// A table is a file in Markdown, made with its first row. It says nothing about
// success: a test fails by itself.
//
// The invariant: rows are appended whole, so tests of several processes may
// write the same table.
package testtable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// DirEnv names the directory for tables. With none set, rows are only logged.
const DirEnv = "VIVER_TABLES"

// Suffix ends the name of each table's file.
const Suffix = ".md"

// Table is one table, the same in every test that adds to it.
type Table struct {
	Name    string // of the file, without suffix
	Columns []string
}

// Add logs a row and appends it to the table. The test fails if it cannot.
func (t Table) Add(tb testing.TB, cells ...any) {
	tb.Helper()
	cell := strings.NewReplacer("\n", " ", "|", `\|`)
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = cell.Replace(fmt.Sprint(c))
	}
	tb.Logf("%s: %s", t.Name, strings.Join(text, " | "))
	if len(cells) != len(t.Columns) {
		tb.Fatalf("table %s: %d cells for %d columns", t.Name, len(cells), len(t.Columns))
	}
	dir := os.Getenv(DirEnv)
	if dir == "" {
		return
	}
	if err := t.append(dir, line(text)); err != nil {
		tb.Fatalf("table %s: %v", t.Name, err)
	}
}

func (t Table) append(dir, row string) error {
	path := filepath.Join(dir, t.Name+Suffix)
	if err := t.create(dir, path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(row)
	return errors.Join(err, f.Close())
}

// create makes the file with its head, unless it exists. The head is written
// before the file has its name, so nobody's row comes first.
func (t Table) create(dir, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	part, err := os.CreateTemp(dir, t.Name+".*.part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	head := line(t.Columns) + "|" + strings.Repeat("---|", len(t.Columns)) + "\n"
	_, err = part.WriteString(head)
	if err := errors.Join(err, part.Close()); err != nil {
		return err
	}
	if err := os.Link(part.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func line(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
