package handover

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"viver.lan/internal/rootpath"
)

// Inits are the places where the kernel looks for an init.
func Inits() []string { return []string{"/sbin/init", "/etc/init", "/bin/init"} }

// FindInit returns the path, as seen from inside root, of the init to run: the
// override or, if that is empty, the first of Inits that is there. The file and
// its interpreter are checked, because after the handover it is too late.
func FindInit(root, override string) (string, error) {
	candidates := Inits()
	if override != "" {
		candidates = []string{override}
	}
	var errs []error
	for _, name := range candidates {
		err := runnable(root, name, 0)
		if err == nil {
			return name, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
		if !errors.Is(err, fs.ErrNotExist) {
			break // it exists and is broken: do not fall back to another one
		}
	}
	return "", fmt.Errorf("the root has no init that can run: %w", errors.Join(errs...))
}

// maxInterpreters is how often a script may be run by a script (execve(2)).
const maxInterpreters = 4

func runnable(root, name string, depth int) error {
	inside, err := rootpath.In(root, name)
	if err != nil {
		return err
	}
	file := filepath.Join(root, inside)
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("is %s, expected a program", info.Mode().Type())
	case info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("is not executable (mode %#o)", info.Mode().Perm())
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	interpreter, err := interpreter(f)
	if err != nil || interpreter == "" {
		return err
	}
	if depth == maxInterpreters {
		return errors.New("is run by a script that is run by a script, and so on")
	}
	if err := runnable(root, interpreter, depth+1); err != nil {
		// Not ErrNotExist to the caller: the file itself does exist.
		return fmt.Errorf("needs %s to run: %v", interpreter, err)
	}
	return nil
}

// interpreter returns the program that a script or a dynamically linked binary
// needs to be started, "" when it needs none.
func interpreter(f *os.File) (string, error) {
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return "", errors.New("is neither a binary nor a script: it is too short")
	}
	if string(magic[:2]) == "#!" {
		line, err := bufio.NewReader(io.NewSectionReader(f, 2, 256)).ReadString('\n')
		words := strings.Fields(line)
		if err != nil && !errors.Is(err, io.EOF) || len(words) == 0 {
			return "", errors.New("is a script that does not say by what")
		}
		return words[0], nil
	}
	if string(magic[:]) != elf.ELFMAG {
		return "", fmt.Errorf("is neither a binary nor a script: it begins with %q", magic)
	}
	binary, err := elf.NewFile(f)
	if err != nil {
		return "", fmt.Errorf("is a damaged binary: %w", err)
	}
	if fit := machines(); len(fit) > 0 && !slices.Contains(fit, binary.Machine) {
		return "", fmt.Errorf("is a program for %v, this machine runs %v", binary.Machine, fit[0])
	}
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			return strings.TrimRight(string(text), "\x00"), err
		}
	}
	return "", nil
}

// machines are the kinds of program that run here; none means: do not check.
func machines() []elf.Machine {
	switch runtime.GOARCH {
	case "amd64":
		return []elf.Machine{elf.EM_X86_64, elf.EM_386}
	case "arm64":
		return []elf.Machine{elf.EM_AARCH64, elf.EM_ARM}
	}
	return nil
}
