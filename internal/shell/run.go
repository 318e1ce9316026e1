package shell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/control"
	"viver.lan/internal/identity"
)

const (
	// killAfter is how long a command may take to end after SIGTERM.
	killAfter = 5 * time.Second
	// grace is how long a machine may take to say that its command has ended.
	grace = killAfter + 3*time.Second
)

// unattended are options for an ssh that no person sits at. One that hears nothing gives
// up: after 10 s while it connects, after 15 s later.
var unattended = []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
	"-o", "LogLevel=ERROR", "-T"}

// Command is one command for many machines.
type Command struct {
	SSH
	Text    string        // for the user's shell on the machine
	Jobs    int           // machines at once
	Timeout time.Duration // for one machine; 0 for none
}

// Outcome says what became of a command on a machine.
type Outcome string

// The outcomes.
const (
	Ended       Outcome = "ended"       // by itself
	NotRun      Outcome = "not_run"     // it never began
	Lost        Outcome = "lost"        // the connection broke, the command may go on or not
	TimedOut    Outcome = "timed_out"   // ended by us
	Interrupted Outcome = "interrupted" // ended by us
)

// Result is what became of a command on one machine.
type Result struct {
	Member  control.Member
	Outcome Outcome
	Code    int    // exit status, if the outcome is Ended
	Reason  string // for people, if it is not
	Took    time.Duration
}

// OK reports whether the command ended with success.
func (r Result) OK() bool { return r.Outcome == Ended && r.Code == 0 }

// Observer gets what happens, one call at a time.
type Observer interface {
	// Line is a line of the command's output, or of ssh's own words, without its end. It
	// may be used until the call returns.
	Line(m control.Member, stderr bool, line []byte)
	// Dead says that the other machines get no answer any more from one whose result is
	// not there yet.
	Dead(m control.Member)
	// Ended is called once per machine, last.
	Ended(r Result)
}

// Run runs the command on the machines and returns a result for each, in their order.
// When ctx ends the command is ended on all of them. statuses tells which machines die
// meanwhile; nil when nobody knows.
func (c Command) Run(ctx context.Context, members []control.Member, statuses <-chan *control.Status, o Observer) []Result {
	log := &serial{observer: o, over: map[identity.ID]bool{}}
	following, stop := context.WithCancel(ctx)
	var follower sync.WaitGroup
	follower.Go(func() { log.follow(following, members, statuses) })
	results := make([]Result, len(members))
	var all errgroup.Group
	all.SetLimit(c.Jobs)
	for i, m := range members {
		all.Go(func() error {
			results[i] = c.on(ctx, m, log)
			log.ended(results[i])
			return nil
		})
	}
	_ = all.Wait() // each result has its own error
	stop()
	follower.Wait()
	return results
}

// on runs the command on one machine.
func (c Command) on(ctx context.Context, m control.Member, log *serial) Result {
	begin := time.Now()
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
		defer cancel()
	}
	s := &session{member: m, log: log, marks: marks{token: rand.Text()}}
	err := s.run(ctx, c.Program, append(append(unattended[:len(unattended):len(unattended)], c.Args(m)...), script(s.marks.token, c.Text)))
	r := s.judge(err, context.Cause(ctx))
	r.Member, r.Took = m, time.Since(begin)
	return r
}

// errTimeout is why a command is ended that takes too long.
var errTimeout = errors.New("it took too long")

// session is one run of ssh.
type session struct {
	member control.Member
	log    *serial

	mu    sync.Mutex // guards what follows: ssh is ended while its output is read
	marks marks
	last  string // line that ssh wrote before the command began
}

// run runs ssh to its end, or until ctx ends: then to the end of the command there, for
// which it has some seconds.
func (s *session) run(ctx context.Context, program string, args []string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches us, and we end it
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Cancel = func() error {
		if !s.begun() {
			return cmd.Process.Kill()
		}
		return lifeline.Close()
	}
	cmd.WaitDelay = grace
	out := &lines{take: func(line []byte) { s.log.line(s.member, false, line) }}
	errs := &lines{take: s.stderr}
	cmd.Stdout, cmd.Stderr = out, errs
	err = cmd.Run()
	out.flush()
	errs.flush()
	return err
}

func (s *session) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks.begun
}

// stderr takes a line of the standard error output, ssh's and the command's.
func (s *session) stderr(line []byte) {
	s.mu.Lock()
	rest, is := s.marks.take(line)
	if is && !s.marks.begun {
		s.last = strings.TrimSpace(string(rest))
	}
	s.mu.Unlock()
	if is {
		s.log.line(s.member, true, rest)
	}
}

// judge says what became of the command. exit is how ssh ended, ended why its context
// has, if it has.
func (s *session) judge(exit, ended error) Result {
	code := 0
	var status *exec.ExitError
	if errors.As(exit, &status) {
		code = status.ExitCode()
	}
	switch m := s.marks; {
	case m.ended && (ended == nil || m.code == 0):
		return Result{Outcome: Ended, Code: m.code}
	case ended != nil:
		return s.cut(ended)
	case m.begun && exit != nil && (code < 0 || code == sshFailed):
		return Result{Outcome: Lost, Reason: "the connection broke; the command may go on there until that machine notices it"}
	case m.begun:
		return Result{Outcome: Ended, Code: code}
	case exit == nil, status != nil && code >= 0 && code != sshFailed:
		return Result{Outcome: NotRun, Reason: fmt.Sprintf("the user's shell there ended with exit status %d before it began", code)}
	case s.last != "":
		return Result{Outcome: NotRun, Reason: s.last}
	}
	return Result{Outcome: NotRun, Reason: fmt.Sprintf("ssh: %v", exit)}
}

// sshFailed is the exit status of an ssh that failed itself.
const sshFailed = 255

// cut is the result of a command that we ended.
func (s *session) cut(why error) Result {
	r := Result{Outcome: Interrupted}
	if errors.Is(why, errTimeout) {
		r.Outcome = TimedOut
	}
	switch {
	case !s.marks.begun:
		r.Reason = "it had not begun"
	case s.marks.ended:
		r.Reason = "it was ended"
	default:
		r.Reason = "the machine did not say that it has ended"
	}
	return r
}

// serial passes what happens on to an observer, one call at a time.
type serial struct {
	mu       sync.Mutex // guards all; the observer is called under it
	observer Observer
	over     map[identity.ID]bool // machines that have a result, or are known to be dead
}

func (s *serial) line(m control.Member, stderr bool, line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer.Line(m, stderr, line)
}

func (s *serial) ended(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over[r.Member.ID] = true
	s.observer.Ended(r)
}

// follow says which of these machines die, until ctx ends.
func (s *serial) follow(ctx context.Context, members []control.Member, statuses <-chan *control.Status) {
	ours := map[identity.ID]bool{}
	for _, m := range members {
		ours[m.ID] = true
	}
	for {
		select {
		case <-ctx.Done():
			return
		case status, ok := <-statuses:
			if !ok {
				return
			}
			for _, m := range status.Members {
				if ours[m.ID] && m.State != control.Alive {
					s.dead(m)
				}
			}
		}
	}
}

func (s *serial) dead(m control.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over[m.ID] {
		s.over[m.ID] = true
		s.observer.Dead(m)
	}
}
