// Package overlay has the files of the built-in runes, for the operator's command.
//
// The initramfs gets the same files by ./build.sh, so machines do not need it. The invariant: it
// holds files and no code.
package overlay

import (
	"embed"
	"io/fs"
)

//go:embed all:runes
var files embed.FS

// Runes has a folder for each built-in rune.
func Runes() (fs.FS, error) { return fs.Sub(files, "runes") }
