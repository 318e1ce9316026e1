// Package overlay has the files of the built-in runes, for the operator's command.
//
// The initramfs gets the same files by ./build.sh, so no machine needs it. The invariant:
// what it has is what ships.
package overlay

import (
	"embed"
	"io/fs"
)

//go:embed all:runes
var files embed.FS

// Runes has a folder for each built-in rune.
func Runes() (fs.FS, error) { return fs.Sub(files, "runes") }
