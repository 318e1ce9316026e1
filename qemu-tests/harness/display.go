package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Display finds the kind of window that QEMU can open here, for
// Config.Display.
func Display(ctx context.Context) (string, error) {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return "", errors.New("no graphical session: neither DISPLAY nor WAYLAND_DISPLAY is set")
	}
	out, err := exec.CommandContext(ctx, QEMU, "-display", "help").Output()
	if err != nil {
		return "", fmt.Errorf("ask QEMU for its displays: %w", err)
	}
	for _, kind := range []string{"gtk", "sdl"} {
		for _, word := range strings.Fields(string(out)) {
			if word == kind {
				return kind, nil
			}
		}
	}
	return "", errors.New("this QEMU opens no windows: install qemu-system-gui")
}

// ParseMemory reads a size such as "1G" or "768M" as MiB; a bare number is
// MiB.
func ParseMemory(s string) (int, error) {
	var n int
	var unit string
	if count, err := fmt.Sscanf(s, "%d%s", &n, &unit); count < 1 || (err != nil && count != 1) {
		return 0, fmt.Errorf("memory %q: want a size such as 1G or 768M", s)
	}
	switch strings.ToUpper(unit) {
	case "", "M", "MB", "MIB":
	case "G", "GB", "GIB":
		n *= 1024
	default:
		return 0, fmt.Errorf("memory %q: the unit %q is neither M nor G", s, unit)
	}
	if n < 64 || n > 1<<20 {
		return 0, fmt.Errorf("memory %q: want 64M to 1024G", s)
	}
	return n, nil
}
