// Program blockdev is the whole userland of a virtual machine that tries
// internal/blockdev and internal/nbd on a real kernel: as PID 1 it loads the
// modules, starts itself again as the block daemon, and reads the device while
// that daemon is stalled, frozen, cut off and killed.
//
// It expects in its initramfs, beside itself as /init: /modules/nbd.ko,
// squashfs.ko and overlay.ko of the kernel that boots, and /image.squashfs,
// any squashfs image whose compression that kernel knows. On the console it
// prints one JSON object per case (type result), last the sum (type summary),
// and powers off. Without that last line the run was not finished.
//
// It is not part of any image. The invariant: whatever happens to the daemon,
// no read fails and none returns a wrong byte.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/blockdev"
)

// result of one case, as printed.
type result struct {
	Case    string  `json:"case"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// summary is the last line printed.
type summary struct {
	Done   bool `json:"done"`
	OK     bool `json:"ok"`
	Cases  int  `json:"cases"`
	Failed int  `json:"failed"`

	hung bool
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "block daemon:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this is the init of a test machine; there is nothing else to run")
		os.Exit(2)
	}
	s := runAll()
	emit(s)
	time.Sleep(200 * time.Millisecond) // the serial line is slower than the power switch
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// deadline of one case. A read that never ends cannot be broken off, so what
// passes the deadline ends the run.
const deadline = time.Minute

// runAll prepares the machine and runs every case. One that fails does not
// keep the next from running; without a bench, or after a case that hangs,
// there is no next.
func runAll() summary {
	s := summary{Done: true}
	b := &bench{}
	s.note(attempt("prepare", b.prepare))
	for _, c := range cases {
		if s.Failed > 0 && (s.Cases == 1 || s.hung) {
			break
		}
		s.note(attempt(c.name, func() (string, error) { return c.run(b) }))
	}
	s.OK = s.Failed == 0
	return s
}

// attempt runs one case up to its deadline.
func attempt(name string, run func() (string, error)) (r result, hung bool) {
	began := time.Now()
	done := make(chan result, 1)
	go func() {
		detail, err := run()
		r := result{Case: name, OK: err == nil, Detail: detail}
		if err != nil {
			r.Error = err.Error()
		}
		done <- r
	}()
	select {
	case r = <-done:
	case <-time.After(deadline):
		r, hung = result{Case: name, Error: fmt.Sprintf("no end after %v", deadline)}, true
	}
	r.Seconds = time.Since(began).Seconds()
	return r, hung
}

// note prints a result and counts it.
func (s *summary) note(r result, hung bool) {
	s.Cases++
	if !r.OK {
		s.Failed++
	}
	s.hung = hung
	emit(r)
}

// emit prints one line on the console, apart from what the kernel says.
func emit(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		line = []byte(err.Error())
	}
	fmt.Printf("\n%s\n", line)
}

// prepareMachine mounts what the tests look at and loads the modules.
func prepareMachine() error {
	for _, m := range []struct{ fstype, target string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, m := range []struct{ name, params string }{{"nbd", blockdev.ModuleParameters}, {"squashfs", ""}, {"overlay", ""}} {
		if err := loadModule("/modules/"+m.name+".ko", m.params); err != nil {
			return fmt.Errorf("load %s: %w", m.name, err)
		}
	}
	return nil
}

// loadModule loads a module; one that is not there must be built in.
func loadModule(path, params string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), params, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
