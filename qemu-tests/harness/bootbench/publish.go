package bootbench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/durable"
)

// Publish copies the results of the last run into the directory docs, if it has
// all rows.
func Publish(out, docs string) error {
	rows, err := readRows(out)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	missing := slices.DeleteFunc(names(plan()), func(name string) bool { _, ok := find(rows, name); return ok })
	if len(missing) > 0 {
		return fmt.Errorf("publish: the last run has no row %s: run the whole benchmark, ./build.sh bench boot", strings.Join(missing, ", "))
	}
	if err := os.MkdirAll(docs, 0o755); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for _, name := range []string{rowsFile, tableFile, pictureFile} {
		data, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			return fmt.Errorf("publish: %w; run the benchmark first: ./build.sh bench boot", err)
		}
		if err := durable.WriteFile(filepath.Join(docs, name), data, 0o644); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// readRows returns the rows of the last result in the directory out.
func readRows(out string) (rows []Row, err error) {
	data, err := os.ReadFile(filepath.Join(out, rowsFile))
	if err != nil {
		return nil, fmt.Errorf("%w; run the benchmark first: ./build.sh bench boot", err)
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("%s: %w", rowsFile, err)
	}
	return rows, nil
}
