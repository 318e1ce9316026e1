package trialboot

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"viver.lan/internal/event"
	"viver.lan/internal/tail"
)

// maxLine bounds what is read of a line, in bytes: a record is shorter.
const maxLine = 1 << 20

// vm is a machine that was switched on.
type vm struct {
	// reports has the machine's events, and nil for all else that it prints; it is closed
	// when the machine is off.
	reports chan event.Event
	off     chan struct{}
	// printed is valid when the machine is off.
	printed *tail.Buffer
}

// start switches a machine on, until ctx ends.
func start(ctx context.Context, program string, c Config, accelerator string) (*vm, error) {
	m := &vm{printed: tail.New(tailSize), reports: make(chan event.Event), off: make(chan struct{})}
	descriptors := make(map[string]uintptr)
	var ours, theirs []*os.File
	for _, name := range ports() {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(append(ours, theirs...))
			return nil, err
		}
		ours, theirs = append(ours, r), append(theirs, w)
		descriptors[name] = uintptr(2 + len(theirs)) // as os/exec numbers them
	}
	cmd := exec.CommandContext(ctx, program, c.arguments(accelerator, descriptors)...)
	cmd.ExtraFiles = theirs
	// Ctrl-C reaches us, and we end it; if we are killed, the kernel does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	complaints := tail.New(tailSize)
	cmd.Stdout, cmd.Stderr = complaints, complaints
	var readers sync.WaitGroup
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that started the process, so it stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		closeAll(theirs)
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // what it printed says more
		readers.Wait()
		_, _ = m.printed.Write([]byte(readable(complaints.String()))) // it never fails
		close(m.reports)
		close(m.off)
	}()
	for i, name := range ports() {
		readers.Go(func() { m.read(ctx, name, ours[i]) })
	}
	if err := <-started; err != nil {
		readers.Wait()
		return nil, err
	}
	return m, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written to it
	}
}

// read reads a port to its end.
func (m *vm) read(ctx context.Context, port string, f *os.File) {
	defer f.Close()
	for lines := bufio.NewReader(f); ; {
		line, err := readLine(lines)
		if len(line) > 0 {
			var e event.Event
			if port == console {
				_, _ = m.printed.Write(line) // it never fails
			} else {
				e = parse(line)
			}
			select {
			case m.reports <- e:
			case <-ctx.Done():
			}
		}
		if err != nil {
			return
		}
	}
}

// readLine reads a line of which it returns maxLine bytes at most.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) <= maxLine {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// parse reads a line of events; nil if it is none that is known.
func parse(line []byte) event.Event {
	var r event.Record
	if json.Unmarshal(line, &r) != nil {
		return nil
	}
	e, err := r.Decode()
	if err != nil {
		return nil
	}
	return e
}

// tailSize is how much of what a machine prints is kept, in bytes.
const tailSize = 2 << 10

// readable is the text without what would move a terminal's cursor.
func readable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return strings.TrimSpace(text)
}
