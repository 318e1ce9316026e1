//go:build !node

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"viver.lan/internal/imagebuild"
)

// libDir finds the directory with the parts that ship beside viver: the one
// given by --lib, else the usual places around the executable.
func libDir(env environment, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	exe, err := env.executable()
	if err != nil {
		return "", fmt.Errorf("find the lib directory: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", fmt.Errorf("find the lib directory: %w", err)
	}
	bin := filepath.Dir(exe)
	tried := []string{filepath.Join(bin, "../lib/viver"), filepath.Join(bin, "../lib"), filepath.Join(bin, "lib"), "/usr/lib/viver", "/usr/local/lib/viver"}
	for _, dir := range tried {
		if _, err := os.Stat(filepath.Join(dir, imagebuild.GoInitramfs)); err == nil {
			return filepath.Clean(dir), nil
		}
	}
	return "", fmt.Errorf("found no %s in %s: run ./build.sh, or name its directory with --lib", imagebuild.GoInitramfs, strings.Join(tried, ", "))
}
