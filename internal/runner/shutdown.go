package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"viver.lan/internal/durable"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/rootpath"
	"viver.lan/internal/runes"
)

// arm implements hooks. The machine's init runs the hook, because we are not asked when
// it ends everything.
func (r hookRunner) arm(ctx context.Context, bundle string, h runes.Hook) error {
	program, script := r.shutdown(bundle)
	if err := errors.Join(writeProgram(program, h.Program), writeProgram(script, shutdownScript(h, program))); err != nil {
		return err
	}
	switch r.init {
	case initsystem.Systemd:
		// No rune or service has an underscore in its name.
		return r.armSystemd(ctx, "viver-"+bundle+"_shutdown.service", script)
	case initsystem.SysVInit, initsystem.OpenRC:
		return r.armSysVInit()
	case initsystem.Runit:
		return r.armRunit()
	}
	return fmt.Errorf("process 1 is %s; only systemd, sysvinit (also with OpenRC) and runit run a program at shutdown for us: %w", r.init, errors.ErrUnsupported)
}

// disarm implements hooks. What the init was told stays, and finds no script.
func (r hookRunner) disarm(bundle string) error {
	_, script := r.shutdown(bundle)
	if err := os.Remove(script); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// shutdown are the files of the hook: its program, and the script that the init runs.
func (r hookRunner) shutdown(bundle string) (program, script string) {
	program = filepath.Join(r.dir, bundle+"."+string(runes.MomentShutdown))
	return program, program + ".sh"
}

// armSystemd has a unit that does nothing until it is stopped. What it may want to use or
// to unmount is stopped after it. One that is there stays, because to stop it is to run the
// hook: it runs the script that is there by then.
func (r hookRunner) armSystemd(ctx context.Context, unit, script string) error {
	d := systemd{run: r.command}
	there, err := d.conditions(ctx, []string{unit})
	if _, armed := there[unit]; err != nil || armed {
		return err
	}
	_, err = r.command(ctx, "/usr/bin/systemd-run", "--quiet", "--collect", "--unit="+unit, "--service-type=oneshot", "--remain-after-exit",
		"--property=ExecStop=/bin/sh "+script, "--property=TimeoutStopSec="+strconv.Itoa(int(r.limit.Seconds())),
		"--property=After=network.target remote-fs.target", "--", "/bin/true")
	return err
}

// armSysVInit has init run all such hooks when it goes to the runlevels in which a machine
// ends, before its own scripts: those run side by side, and one of them kills everything.
// init reads the file when it goes there. After the next boot the line finds nothing until
// a hook is armed again. OpenRC is often started by the same init.
func (r hookRunner) armSysVInit() error {
	return r.insert("/etc/inittab", "vh:06:wait:", 0o644, func(inittab []byte) (int, error) {
		if !sysvInittab.Match(inittab) {
			return 0, fmt.Errorf("process 1 is not sysvinit, which is the one that runs a program for us at shutdown under %s: %w", r.init, errors.ErrUnsupported)
		}
		return 0, nil
	})
}

// sysvInittab is what only sysvinit has in its file: the runlevel that it goes to. The init
// of BusyBox knows none.
var sysvInittab = regexp.MustCompile(`(?m)^\w+:\d:initdefault:`)

// armRunit has runit run all such hooks first when the machine ends: its program for that
// moment is a shell script of the distribution.
func (r hookRunner) armRunit() error {
	return r.insert("/etc/runit/3", "", 0o755, func(stage []byte) (int, error) {
		first := shellScript.Find(stage)
		if first == nil {
			return 0, fmt.Errorf("/etc/runit/3 is no shell script: %w", errors.ErrUnsupported)
		}
		return len(first), nil
	})
}

var shellScript = regexp.MustCompile(`^#! *(\S*/)(env +)?(ba|da|k|z)?sh\b.*\n`)

// insert has a file of the distribution run the hooks, by a line of its own at the place
// that where finds.
func (r hookRunner) insert(path, prefix string, mode os.FileMode, where func([]byte) (int, error)) error {
	all := filepath.Join(r.dir, "all.sh")
	script := fmt.Sprintf("#!/bin/sh\nfor hook in %s/*.%s.sh; do timeout %d /bin/sh \"$hook\"; done\n", r.dir, runes.MomentShutdown, int(r.limit.Seconds()))
	if err := writeProgram(all, []byte(script)); err != nil {
		return err
	}
	name, err := rootpath.In(r.system.Root(), path)
	if err != nil {
		return err
	}
	name = filepath.Join(r.system.Root(), name)
	text, err := os.ReadFile(name)
	line := []byte(prefix + "/bin/sh " + all + "\n")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: without that file %s runs no program at shutdown for us: %w", err, r.init, errors.ErrUnsupported)
	}
	if err != nil || bytes.Contains(text, line) {
		return err
	}
	at, err := where(text)
	if err != nil {
		return err
	}
	return durable.WriteFile(name, slices.Concat(text[:at], line, text[at:]), mode)
}

// shutdownScript runs a hook with its environment. It has its own limit only where the
// init has one.
func shutdownScript(h runes.Hook, program string) []byte {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	for _, variable := range h.Env {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Fprintf(&b, "export %s=%s\n", name, quoted(value))
	}
	b.WriteString("exec")
	for _, arg := range append(append([]string{}, h.Interpreter...), program) {
		b.WriteString(" " + quoted(arg))
	}
	return []byte(b.String() + "\n")
}

// quoted is a word that a shell takes as it is.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
