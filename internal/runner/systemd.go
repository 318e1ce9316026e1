package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"viver.lan/internal/booted"
	"viver.lan/internal/tail"
)

const (
	// commandTimeout is how long a command of systemd's may take. During the boot a
	// service waits for basic.target.
	commandTimeout = 90 * time.Second
	// restartAfter is the seconds after which systemd starts a service again.
	restartAfter = 2
	// stopWithin is how long a service may take to end.
	stopWithin = 20 * time.Second
)

// systemd keeps services running as transient units: they have their cgroup and their
// journal, and go on whatever becomes of us.
type systemd struct {
	run func(ctx context.Context, argv ...string) ([]byte, error)
}

// runIn runs programs of the booted system and returns what they print.
func runIn(system booted.System) func(ctx context.Context, argv ...string) ([]byte, error) {
	return func(ctx context.Context, argv ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, commandTimeout, fmt.Errorf("%s: not done after %s", argv[0], commandTimeout))
		defer cancel()
		out, problems := tail.New(maxHookOutput), tail.New(4<<10)
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
		cmd.Stdout, cmd.Stderr = out, problems
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.WaitDelay = hookGrace
		err := system.Start(cmd, "")
		if err == nil {
			err = cmd.Wait()
		}
		switch line := problems.LastLine(); {
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil && line != "":
			return nil, errors.New(line)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", argv[0], err)
		}
		return out.Bytes(), nil
	}
}

// start implements services.
func (d systemd) start(ctx context.Context, s ServiceState) error {
	if err := d.stop(ctx, s); err != nil {
		return err
	}
	argv := []string{"/usr/bin/systemd-run", "--quiet", "--collect", "--unit=" + s.Unit, "--description=VIVER rune: " + s.Name,
		"--service-type=exec", "--property=Restart=always", "--property=RestartSec=" + strconv.Itoa(restartAfter),
		"--property=StartLimitIntervalSec=0", "--property=TimeoutStopSec=" + strconv.Itoa(int(stopWithin.Seconds()))}
	if s.Stop != "" {
		argv = append(argv, "--property=KillSignal="+s.Stop)
	}
	if s.User != "" {
		argv = append(argv, "--uid="+s.User)
	}
	argv = append(argv, "--")
	for _, arg := range s.Start {
		argv = append(argv, strings.ReplaceAll(arg, "$", "$$")) // systemd.exec(5) puts variables in
	}
	_, err := d.run(ctx, argv...)
	if err != nil {
		err = errors.Join(err, d.stop(ctx, s)) // or systemd tries on
	}
	return err
}

// stop implements services.
func (d systemd) stop(ctx context.Context, s ServiceState) error {
	_, err := d.run(ctx, systemctl, "stop", s.Unit)
	if err != nil && strings.Contains(err.Error(), "not loaded") {
		return nil
	}
	return err
}

// systemctl is where each distribution with systemd has it: /bin is a link to /usr/bin
// where it is not the place itself.
const systemctl = "/bin/systemctl"

// conditions implements services.
func (d systemd) conditions(ctx context.Context, units []string) (map[string]condition, error) {
	if len(units) == 0 {
		return nil, nil
	}
	out, err := d.run(ctx, append([]string{systemctl, "show", "--property=Id,ActiveState,SubState,NRestarts,ExecMainCode,ExecMainStatus"}, units...)...)
	if err != nil {
		return nil, err
	}
	return parseShow(out), nil
}

// parseShow reads what systemctl show prints: blocks of NAME=VALUE, one per unit.
func parseShow(out []byte) map[string]condition {
	all := make(map[string]condition)
	for block := range bytes.SplitSeq(out, []byte("\n\n")) {
		values := make(map[string]string)
		for line := range bytes.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
			values[name] = value
		}
		unit := values["Id"]
		if unit == "" || values["ActiveState"] == "inactive" {
			continue // it is not there
		}
		c := condition{state: Starting}
		c.restarts, _ = strconv.Atoi(values["NRestarts"]) // systemd before 235 does not say
		if values["ActiveState"] == "active" && values["SubState"] == "running" {
			c.state = Running
		} else if values["ExecMainCode"] != "0" {
			c.reason = "ended with " + ending(values["ExecMainCode"], values["ExecMainStatus"])
		}
		all[unit] = c
	}
	return all
}

// ending puts a program's end into words; code is that of siginfo_t (sigaction(2)).
func ending(code, status string) string {
	if code == "1" {
		return "exit status " + status
	}
	return "signal " + status
}
