package runes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/tail"
)

const (
	// hookTimeout is how long the boot waits for one hook.
	hookTimeout = 60 * time.Second
	// hookGrace is how long it waits for programs that a hook left running to close
	// its output.
	hookGrace = time.Second
	// maxHookOutput bounds what is kept of a hook's output.
	maxHookOutput = 64 << 10
	// hookDir is where hooks lie while they run, as seen inside the root.
	hookDir = "/run/viver/hooks"
)

// hookProgram is a program to run inside the root: a script with its
// interpreter, or a binary with none.
type hookProgram struct {
	interpreter []string
	data        []byte
}

func newHook(n node) (hookProgram, error) {
	switch {
	case n.link != "":
		return hookProgram{}, errors.New("is a symbolic link, want a program")
	case bytes.HasPrefix(n.data, []byte("\x7fELF")):
		return hookProgram{data: n.data}, nil
	}
	script := text(n.data)
	first, _, _ := strings.Cut(script, "\n")
	line, ok := strings.CutPrefix(first, "#!")
	// As in the kernel, all that follows the interpreter is one argument.
	interpreter, argument, _ := strings.Cut(strings.TrimSpace(line), " ")
	if !ok || !path.IsAbs(interpreter) {
		return hookProgram{}, errors.New("is neither a binary nor a script whose first line names its interpreter, such as #!/bin/sh")
	}
	h := hookProgram{interpreter: []string{interpreter}, data: []byte(script)}
	if argument = strings.TrimSpace(argument); argument != "" {
		h.interpreter = append(h.interpreter, argument)
	}
	return h, nil
}

// chroot is the root made ready for programs: it has the running system's
// /dev, /proc and /sys, and the /run that it will have.
type chroot struct {
	Target
	mounted []string // unmounted in reverse
}

func openChroot(t Target) (*chroot, error) {
	c := &chroot{Target: t}
	sources := map[string]string{"dev": "/dev", "proc": "/proc", "sys": "/sys", "run": t.Run}
	for _, name := range []string{"dev", "proc", "sys", "run"} {
		if err := c.bind(sources[name], filepath.Join(t.Root, name)); err != nil {
			return nil, errors.Join(fmt.Errorf("make %s ready for hooks: %w", t.Root, err), c.Close())
		}
	}
	return c, nil
}

func (c *chroot) bind(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if info, err := os.Lstat(to); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a directory", to)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	c.mounted = append(c.mounted, to)
	// Unmounting below must stay here and not spread to what was bound.
	if err := unix.Mount("", to, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", to, err)
	}
	return nil
}

// Close unmounts what openChroot mounted.
func (c *chroot) Close() error {
	var errs []error
	for i := len(c.mounted) - 1; i >= 0; i-- {
		if err := unix.Unmount(c.mounted[i], unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", c.mounted[i], err))
		}
	}
	return errors.Join(errs...)
}

// run executes a hook and waits for it. Its output goes to the log.
func (c *chroot) run(ctx context.Context, name string, h hookProgram, env []string, log *slog.Logger) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, hookTimeout, fmt.Errorf("not done after %s", hookTimeout))
	defer cancel()
	inside := path.Join(hookDir, name)
	outside := filepath.Join(c.Run, strings.TrimPrefix(inside, "/run"))
	if err := os.MkdirAll(filepath.Dir(outside), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(outside, h.data, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(outside)) }()

	argv := append(append([]string{}, h.interpreter...), inside) // even where /run is noexec
	out := tail.New(maxHookOutput)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Path, cmd.Err = argv[0], nil // looked up inside the root, not here
	cmd.Env, cmd.Dir = env, "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Chroot: c.Root, Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = hookGrace
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it left something running, which is allowed
	}
	for line := range strings.Lines(out.String()) {
		log.Info("hook output", "rune", name, "line", strings.TrimRight(line, "\n"))
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case out.LastLine() != "":
		return fmt.Errorf("%w: %s", err, out.LastLine())
	}
	return err
}
