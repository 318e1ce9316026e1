//go:build !node

package main

import (
	"fmt"

	"viver.lan/internal/runes"
	"viver.lan/overlay"
)

// builtinRunes are those that each initramfs has.
func builtinRunes() ([]runes.Bundle, error) {
	files, err := overlay.Runes()
	if err != nil {
		return nil, err
	}
	bundles, errs := runes.Load(files)
	for _, err := range errs {
		return nil, fmt.Errorf("built-in %w", err)
	}
	return bundles, nil
}
