package hardware

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Modprobe is the program that the kernel runs as /sbin/modprobe when it wants
// a module itself, e.g. a character set for a FAT file system: "modprobe -q --
// NAME". With -a every operand is a module; otherwise those after the first are
// parameters. It only loads; -r is refused.
func Modprobe(ctx context.Context, k Kernel, args []string) error {
	names, params, err := modprobeArgs(args)
	if err != nil {
		return err
	}
	release, err := Release(k)
	if err != nil {
		return fmt.Errorf("modprobe: %w", err)
	}
	tree, err := OpenTree(k.Path("/"), release)
	if err != nil {
		return fmt.Errorf("modprobe: %w", err)
	}
	opts := Options{}
	if params != "" {
		opts.Params = map[string]string{names[0]: params}
	}
	if _, err := NewLoader(k, tree, opts).Load(ctx, names...); err != nil {
		return fmt.Errorf("modprobe: %w", err)
	}
	return nil
}

func modprobeArgs(args []string) (names []string, params string, err error) {
	all := false
	for i, arg := range args {
		if arg == "--" {
			names = append(names, args[i+1:]...)
			break
		}
		switch {
		case arg == "-a" || arg == "--all":
			all = true
		case arg == "-q" || arg == "-s" || arg == "-v" || arg == "-b" || strings.HasPrefix(arg, "--"):
			// Quiet, syslog, verbose, blacklist and their long forms: our
			// caller shows or hides the error, nothing else changes.
			if arg == "--remove" {
				return nil, "", errors.New("modprobe: cannot remove modules")
			}
		case strings.HasPrefix(arg, "-"):
			return nil, "", fmt.Errorf("modprobe: unknown option %s", arg)
		default:
			names = append(names, arg)
		}
	}
	if len(names) == 0 {
		return nil, "", errors.New("modprobe: which module? none was named")
	}
	if !all {
		names, params = names[:1], strings.Join(names[1:], " ")
	}
	return names, params, nil
}

// Root is a machine whose files are below a directory; "/" is this one.
type Root string

// Path returns where a file of the machine is.
func (r Root) Path(name string) string { return filepath.Join(string(r), name) }

// Release returns the running kernel's release, as uname -r prints it.
func Release(k interface{ Path(string) string }) (string, error) {
	data, err := os.ReadFile(k.Path("/proc/sys/kernel/osrelease"))
	if err != nil {
		return "", fmt.Errorf("kernel release: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
