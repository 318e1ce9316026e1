package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness/lan"
	"viver.lan/qemu-tests/harness/stall"
)

// Name of the machine.
func (vm *VM) Name() string { return vm.config.Name }

// MAC of a network card.
func (vm *VM) MAC(nic int) string { return vm.config.NICs[nic].MAC }

// Started is when the power came on.
func (vm *VM) Started() time.Time { return vm.started }

// Console is the serial port.
func (vm *VM) Console() *Console { return vm.console }

// Port is the switch's end of a network card's cable.
func (vm *VM) Port(nic int) *lan.Port { return vm.ports[nic] }

// Records are all events so far, also those from before a reset.
func (vm *VM) Records() []Record { return vm.events.all() }

// ToKernel is the time from power-on until the machine's first kernel began to
// count, 0 when no event has told of one.
func (vm *VM) ToKernel() time.Duration {
	var first time.Duration
	for _, rec := range vm.Records() {
		if d := rec.Kernel().Sub(vm.started); first == 0 || d < first {
			first = d
		}
	}
	return first
}

// Forget lets later waits see only events that come from now on. A reset does
// that by itself.
func (vm *VM) Forget() { vm.events.forget() }

// WaitFor waits for an event; what completes "waited for". It fails at once
// when a stage of the guest's boot stops or the machine goes off, and, like all
// waits here, when the machine shows no sign of life any more.
func (vm *VM) WaitFor(ctx context.Context, what string, match func(event.Record) bool) (Record, error) {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began := time.Now()
	rec, err := vm.events.wait(ctx, match)
	return rec, vm.explain(what, began, err)
}

// WaitReady waits for the agent, which the distribution's init starts.
func (vm *VM) WaitReady(ctx context.Context) (execproto.Hello, error) {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began := time.Now()
	// A guest whose boot stops will never have one.
	watch, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, err := vm.events.wait(watch, func(event.Record) bool { return false })
		stop(err)
	}()
	hello, err := vm.agent.ready(watch)
	stop(nil)
	<-over
	return hello, vm.explain("the agent", began, err)
}

// WaitConsole waits for text that matches a regular expression and returns
// the match.
func (vm *VM) WaitConsole(ctx context.Context, pattern string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", fmt.Errorf("%s: %w", vm.Name(), err)
	}
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began := time.Now()
	found, err := vm.console.wait(ctx, re)
	return found, vm.explain(fmt.Sprintf("%q on the console", pattern), began, err)
}

// Resets counts how often the machine started again.
func (vm *VM) Resets() int {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.resets
}

// WaitReset waits until the machine has started again more than seen times,
// as Resets counts.
func (vm *VM) WaitReset(ctx context.Context, seen int) error {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began := time.Now()
	for {
		vm.mu.Lock()
		changed, resets := vm.changed, vm.resets
		vm.mu.Unlock()
		if resets > seen {
			return nil
		}
		select {
		case <-changed:
		case <-vm.done:
			return vm.explain("a reboot", began, errMachineOff)
		case <-ctx.Done():
			return vm.explain("a reboot", began, context.Cause(ctx))
		}
	}
}

// WaitOff waits until the machine has switched itself off and returns QEMU's
// word for why, "guest-shutdown" for a clean poweroff.
func (vm *VM) WaitOff(ctx context.Context) (string, error) {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began := time.Now()
	select {
	case <-vm.done:
		vm.mu.Lock()
		defer vm.mu.Unlock()
		return vm.reason, nil
	case <-ctx.Done():
		return "", vm.explain("the power to go off", began, context.Cause(ctx))
	}
}

// explain adds to an error what the machine was last seen doing.
func (vm *VM) explain(what string, began time.Time, err error) error {
	if err == nil {
		return nil
	}
	if complaint := vm.stderr.String(); errors.Is(err, errMachineOff) && complaint != "" {
		err = fmt.Errorf("%w; QEMU said: %s", err, complaint)
	}
	err = fmt.Errorf("%s: waited %.0f s for %s: %w", vm.Name(), time.Since(began).Seconds(), what, err)
	var silent *stall.Error
	if errors.As(err, &silent) {
		return err // which says the same and more
	}
	return fmt.Errorf("%w; %s; its console ends with %q", err, vm.events.last(), vm.console.LastLine())
}

// Run executes a command in the guest, once its agent is there, and returns
// what it printed. An exit code other than 0 is an *ExitError.
func (vm *VM) Run(ctx context.Context, argv ...string) (string, error) {
	resp, err := vm.Do(ctx, execproto.Request{Argv: argv})
	if err != nil {
		return "", err
	}
	if resp.Exit != 0 {
		return string(resp.Stdout), fmt.Errorf("%s: %w", vm.Name(), &ExitError{Argv: argv, Response: resp})
	}
	return string(resp.Stdout), nil
}

// Do sends the agent a request, once it is there; the ID is chosen here. The
// response may be that of a command that failed.
func (vm *VM) Do(ctx context.Context, req execproto.Request) (execproto.Response, error) {
	if _, err := vm.WaitReady(ctx); err != nil {
		return execproto.Response{}, err
	}
	// The agent ends a command that outlives its time; ours ends earlier if
	// the guest shows no sign of life.
	if req.Timeout == 0 {
		req.Timeout = maxWait.Seconds()
	}
	if deadline, ok := ctx.Deadline(); ok {
		req.Timeout = min(req.Timeout, max(time.Until(deadline).Seconds(), 1))
	}
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began := time.Now()
	resp, err := vm.agent.do(ctx, req)
	return resp, vm.explain(fmt.Sprintf("%q", req.Argv), began, err)
}

// PowerCut ends the machine at once, as pulling the plug would, and waits
// until nothing of it is left. On a machine that is off it does nothing.
func (vm *VM) PowerCut() {
	select {
	case <-vm.done:
	default:
		_ = vm.process.Kill() // it may have ended meanwhile
		<-vm.done
	}
}

// Reset presses the reset button.
func (vm *VM) Reset(ctx context.Context) error { return vm.command(ctx, "system_reset", nil) }

// PullUSB pulls the stick out.
func (vm *VM) PullUSB(ctx context.Context) error {
	return vm.command(ctx, "device_del", map[string]any{"id": "usbstick"})
}

// PressKeys holds keys down together on the machine's keyboard and lets go, as
// QEMU names them: "ctrl", "alt", "delete".
func (vm *VM) PressKeys(ctx context.Context, keys ...string) error {
	var all []map[string]string
	for _, k := range keys {
		all = append(all, map[string]string{"type": "qcode", "data": k})
	}
	return vm.command(ctx, "send-key", map[string]any{"keys": all})
}

// Type types a line of lower-case text on the machine's keyboard, and Return.
func (vm *VM) Type(ctx context.Context, text string) error {
	named := map[rune][]string{' ': {"spc"}, '/': {"slash"}, '-': {"minus"}, '.': {"dot"}, '>': {"shift", "dot"}, '\n': {"ret"}}
	for _, r := range text + "\n" {
		keys, ok := named[r]
		if !ok {
			keys = []string{string(r)}
		}
		if err := vm.PressKeys(ctx, keys...); err != nil {
			return err
		}
	}
	return nil
}

// SetLink pulls (false) or plugs in (true) a network cable; the guest's card
// notices. Port.Cut is a break that it does not notice.
func (vm *VM) SetLink(ctx context.Context, nic int, up bool) error {
	return vm.command(ctx, "set_link", map[string]any{"name": fmt.Sprintf("nic%d", nic), "up": up})
}

func (vm *VM) command(ctx context.Context, name string, args any) error {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	if err := vm.qmp.do(ctx, name, args); err != nil {
		return fmt.Errorf("%s: %w", vm.Name(), err)
	}
	return nil
}

// As returns the event of a record if it is of that type.
func As[E event.Event](rec event.Record) (E, bool) {
	var none E
	if rec.Kind != none.Kind() {
		return none, false
	}
	e, err := rec.Decode()
	if err != nil {
		return none, false
	}
	typed, ok := e.(E)
	return typed, ok
}

// logStage tells people of a stage that ended.
func (l *Lab) logStage(vm string, rec Record) {
	s, ok := As[event.Stage](rec.Record)
	if !ok || s.State == event.Started {
		return
	}
	detail := s.Detail
	if detail != "" {
		detail = ": " + detail
	}
	l.opts.Logf("%s: %6.1f s  %s %s%s", vm, rec.Uptime, s.Name, s.State, detail)
}
