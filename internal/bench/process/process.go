// Package process runs programs in the nodes of a bed and tells what CPU they,
// and the whole machine, have used.
//
// It knows nothing of what the programs do. The invariant: a Process has
// exactly one goroutine that waits for it, and Stop returns after it.
package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"viver.lan/internal/netbed"
)

// stopTimeout is how long a process that was told to end may take.
const stopTimeout = 10 * time.Second

// Process is a program that runs in a node. What it prints goes to a log file;
// of a worker, which is talked with, only what it says on standard error.
type Process struct {
	// Name says which program on which node it is, for messages.
	Name string
	// Log is the path of its log file.
	Log   string
	cmd   *exec.Cmd
	done  chan struct{} // closed when it has ended and err is set
	err   error
	says  chan string // nil unless it is a worker
	stdin io.WriteCloser

	base, used float64 // seconds of CPU before Mark, and until Take
}

// Start runs a program in a node until it ends or ctx does; its log is the
// file at log. A worker can be talked with by Tell and Hear. The caller stops
// it.
func Start(ctx context.Context, node *netbed.Node, log string, worker bool, name string, args ...string) (*Process, error) {
	p := &Process{Name: fmt.Sprintf("%s on node %d", filepath.Base(name), node.Index()), Log: log,
		done: make(chan struct{}), used: math.NaN(), cmd: node.Command(ctx, name, args...)}
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("keep the log of %s: %w", p.Name, err)
	}
	defer file.Close() // the process has its own copy
	p.cmd.Stdout, p.cmd.Stderr = file, file
	var out io.Reader
	if worker {
		p.cmd.Stdout = nil
		if out, err = p.cmd.StdoutPipe(); err == nil {
			p.stdin, err = p.cmd.StdinPipe()
		}
		if err != nil {
			return nil, fmt.Errorf("talk with %s: %w", p.Name, err)
		}
		p.says = make(chan string, 16)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	go p.follow(out)
	return p, nil
}

// follow passes a worker's lines on and waits for the end. Stop waits
// for it.
func (p *Process) follow(out io.Reader) {
	if out != nil {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			select {
			case p.says <- lines.Text():
			default: // nobody listens any more
			}
		}
		close(p.says)
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// cpu returns the seconds of CPU the process has used so far, NaN if the
// kernel does not tell (proc_pid_stat(5)).
func (p *Process) cpu() float64 {
	select {
	case <-p.done:
		return (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds()
	default:
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return math.NaN()
	}
	// The name in parentheses may hold spaces; utime is the 12th field after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks float64
	for _, i := range []int{11, 12} {
		if i >= len(fields) {
			return math.NaN()
		}
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return math.NaN()
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, the same on every Linux that Go knows
	return ticks / perSecond
}

// Mark notes the CPU used before measuring begins.
func (p *Process) Mark() {
	if c := p.cpu(); !math.IsNaN(c) {
		p.base = c
	}
}

// Take notes the CPU used when measuring ends.
func (p *Process) Take() { p.used = p.cpu() - p.base }

// CPU returns the seconds of CPU, user and system, used between Mark (or the
// start) and Take; NaN if the kernel did not tell.
func (p *Process) CPU() float64 { return p.used }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, once it has.
func (p *Process) Err() error { return p.err }

// Kill ends the process and its children without a warning.
func (p *Process) Kill() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// Stop ends the process in order, or without.
func (p *Process) Stop() {
	if p.stdin != nil {
		p.stdin.Close()
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.Kill()
		<-p.done
	}
}

// Failed explains why a process that should run does not.
func (p *Process) Failed() error {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		text = []byte(err.Error())
	}
	const last = 600
	return fmt.Errorf("%s ended early: %w; its last words, of %s:\n%s", p.Name, p.err, p.Log, text[max(0, len(text)-last):])
}

// Tell writes a line to a worker.
func (p *Process) Tell(line string) error {
	_, err := io.WriteString(p.stdin, line+"\n")
	return err
}

// Hear waits until a worker prints the line word; other lines go to each.
func (p *Process) Hear(ctx context.Context, word string, each func(line string)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line, ok := <-p.says:
			if !ok {
				<-p.done
				return p.Failed()
			}
			if line == word {
				return nil
			}
			each(line)
		}
	}
}
