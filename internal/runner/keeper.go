package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/runes"
)

const (
	// firstRetry is the wait before what failed is tried again; it doubles up to lastRetry.
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute
)

// view is what a rune may know at one moment.
type view struct {
	facts   runes.Facts // checked
	members string      // what the hook members-changed is about
	up      bool        // the boot is over and the network's members are known
	// gone says that the rune is in use no more: all that it had is taken away.
	gone bool
}

// tools are what keepers work with.
type tools struct {
	open     func() (*runes.System, error)
	hooks    hooks
	services services
	board    *board
	log      *slog.Logger
	// originals is a directory for files whose place others take for a while.
	originals string
}

// hooks runs programs of runes.
type hooks interface {
	run(ctx context.Context, bundle string, moment runes.Moment, h runes.Hook) error
	// arm has the hook shutdown run when the machine is about to be off.
	arm(ctx context.Context, bundle string, h runes.Hook) error
	// disarm has none run.
	disarm(bundle string) error
}

// keeper makes one rune on this machine what the network wants of it. What a hook takes
// long for delays its own rune only.
type keeper struct {
	tools
	bundle runes.Bundle
	// refused are paths that another rune lays, with the reason.
	refused map[string]string
	views   chan view // holds the newest one that was not taken
	have    RuneState
}

// show tells a keeper the newest view. One that it has not taken yet is forgotten.
func (k *keeper) show(v view) { latest(k.views, v) }

// run follows the views until ctx ends, or the rune is gone and all of it is taken away.
func (k *keeper) run(ctx context.Context) error {
	var v view
	retry := firstRetry
	again := time.NewTimer(0)
	<-again.C
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case v = <-k.views:
		case <-again.C:
		}
		again.Stop()
		err := k.converge(ctx, v)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && v.gone {
			err = k.hooks.disarm(k.bundle.Name)
		}
		if err == nil {
			retry = firstRetry
			if v.gone {
				k.board.drop(k.bundle.Name)
				return nil
			}
			continue
		}
		k.log.Warn("rune", "name", k.bundle.Name, "error", err, "again_in", retry)
		again.Reset(retry)
		retry = min(2*retry, lastRetry)
	}
}

// converge makes the rune what the view says, as far as it goes. The error is what is
// worth another attempt.
func (k *keeper) converge(ctx context.Context, v view) error {
	system, err := k.open()
	if err != nil {
		return err
	}
	defer system.Close() // opened for reading: nothing can be lost
	want := k.aim(system, v)
	var conditions map[string]condition
	if want.up { // before, systemd does not answer yet, and nothing is started
		if conditions, err = k.services.conditions(ctx, k.units(want)); err != nil {
			return err
		}
	}
	var errs []error
	for _, a := range plan(k.have, want, conditions) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if a.kind == startService && a.role != "" && !slices.Contains(k.have.Roles, a.role) {
			continue // its hook failed, which is in errs
		}
		err := k.carryOut(ctx, system, a, want, v.facts)
		if ctx.Err() != nil {
			return ctx.Err() // a hook that was cut short is not noted
		}
		errs = append(errs, err)
		k.board.put(k.have)
	}
	k.report(want, errs)
	return errors.Join(errs...)
}

func (k *keeper) units(want aim) []string {
	units := make([]string, len(want.wanted.Services))
	for i, s := range want.wanted.Services {
		units[i] = unitOf(k.bundle.Name, s.Name)
	}
	return units
}

// aim works out what the rune is to be.
func (k *keeper) aim(system *runes.System, v view) aim {
	if v.gone {
		return aim{wanted: runes.Wanted{Skipped: "in use no more"}, members: k.have.Members}
	}
	want := aim{wanted: system.Wanted(k.bundle, v.facts), members: v.members, up: v.up}
	if want.wanted.Skipped != "" {
		want.up = false
		return want
	}
	for i, f := range want.wanted.Files {
		if reason := k.refused[f.Path]; reason != "" {
			want.wanted.Files[i].Err = errors.New(reason)
		}
	}
	for _, name := range v.facts.Roles {
		if role, own := strings.CutPrefix(name, k.bundle.Name+"/"); own {
			want.roles = append(want.roles, role)
		}
	}
	return want
}

// carryOut does one thing and notes that it is done.
func (k *keeper) carryOut(ctx context.Context, system *runes.System, a action, want aim, facts runes.Facts) error {
	switch a.kind {
	case stopService:
		if err := k.services.stop(ctx, a.service); err != nil {
			return fmt.Errorf("stop %s: %w", a.service.Name, err)
		}
		k.forget(a.service)
	case startService:
		k.forget(a.service)
		k.have.Services = append(k.have.Services, a.service)
		k.board.put(k.have) // before it is there: who comes after us finds it
		if err := k.services.start(ctx, a.service); err != nil {
			k.forget(a.service) // or it counts as one that has ended, and is started again before its time
			return fmt.Errorf("service %s: %w", a.service.Name, err)
		}
		k.log.Info("rune: service started", "name", k.bundle.Name, "unit", a.service.Unit)
	case removeFile:
		return k.removeFile(system, a.path)
	case layFile:
		i := slices.IndexFunc(want.wanted.Files, func(f runes.File) bool { return f.Path == a.path })
		return k.layFile(system, want.wanted.Files[i])
	case gainRole:
		if err := k.hook(ctx, runes.MomentRoleGained, facts, a.role); err != nil {
			return fmt.Errorf("role %s: its services wait: %w", a.role, err)
		}
		k.have.Roles = append(k.have.Roles, a.role)
		k.log.Info("rune: role gained", "name", k.bundle.Name, "role", a.role)
	case loseRole: // lost in any case
		k.have.Roles = slices.DeleteFunc(k.have.Roles, func(r string) bool { return r == a.role })
		k.have.Hooks = slices.DeleteFunc(k.have.Hooks, func(h HookState) bool { return h.Moment == runes.MomentRoleGained && h.Role == a.role })
		k.log.Info("rune: role lost", "name", k.bundle.Name, "role", a.role)
		_ = k.hook(ctx, runes.MomentRoleLost, facts, a.role) // its state says why it failed
	case boot: // once in any case
		k.have.Booted = true
		_ = k.hook(ctx, runes.MomentBooted, facts, "") // as above
	case tellMembers:
		k.have.Members = want.members
		_ = k.hook(ctx, runes.MomentMembers, facts, "") // as above
	case arm:
		if err := k.armShutdown(ctx, facts); err != nil {
			return fmt.Errorf("hook shutdown will not run: %w", err)
		}
		k.have.Armed = true
	}
	return nil
}

// removeFile puts back what was in a file's place, or leaves that to the last of the runes
// that have laid it.
func (k *keeper) removeFile(system *runes.System, path string) error {
	k.board.places.Lock()
	defer k.board.places.Unlock()
	if !k.board.others(k.bundle.Name, path) {
		if err := system.Restore(path, k.originals); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	k.have.Files = slices.DeleteFunc(k.have.Files, func(p string) bool { return p == path })
	k.board.put(k.have)
	return nil
}

func (k *keeper) layFile(system *runes.System, f runes.File) error {
	k.board.places.Lock()
	defer k.board.places.Unlock()
	if f.Added { // even if we have it: an earlier process may have put the original back
		if err := system.Keep(f.Path, k.originals); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if f.Passing && !slices.Contains(k.have.Files, f.Path) {
		k.have.Files = append(k.have.Files, f.Path)
		k.board.put(k.have) // before it is there, as a service
	}
	if err := system.Lay(k.bundle, f); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	return nil
}

func (k *keeper) forget(s ServiceState) {
	k.have.Services = slices.DeleteFunc(k.have.Services, func(h ServiceState) bool { return h.Name == s.Name })
}

// armShutdown has the hook run when the machine is about to be off, if there is one. An
// init that never will is told of as a hook that failed, and not asked again.
func (k *keeper) armShutdown(ctx context.Context, facts runes.Facts) error {
	k.have.Hooks = slices.DeleteFunc(k.have.Hooks, func(h HookState) bool { return h.Moment == runes.MomentShutdown })
	h, ok := k.bundle.Hook(runes.MomentShutdown, facts, "")
	if !ok {
		return k.hooks.disarm(k.bundle.Name)
	}
	err := k.hooks.arm(ctx, k.bundle.Name, h)
	if errors.Is(err, errors.ErrUnsupported) {
		k.have.noteHook(HookState{Moment: runes.MomentShutdown, Reason: "hook shutdown will not run: " + err.Error()})
		return nil
	}
	return err
}

// hook runs a hook, if the rune has one for the moment.
func (k *keeper) hook(ctx context.Context, moment runes.Moment, facts runes.Facts, role string) error {
	h, ok := k.bundle.Hook(moment, facts, role)
	if !ok {
		return nil
	}
	began := time.Now()
	err := k.hooks.run(ctx, k.bundle.Name, moment, h)
	state := HookState{Moment: moment, Role: role, Seconds: time.Since(began).Round(time.Millisecond).Seconds()}
	if ctx.Err() != nil {
		return ctx.Err() // cut short by our own end
	}
	if err != nil {
		err = fmt.Errorf("hook %s: %w", moment, err)
		state.Reason = err.Error()
		k.log.Warn("rune: a hook failed", "name", k.bundle.Name, "moment", moment, "role", role, "error", err)
	}
	k.have.noteHook(state)
	return err
}

// report puts into words what became of the rune.
func (k *keeper) report(want aim, errs []error) {
	k.have.Outcome, k.have.Reason = runes.Applied, ""
	if want.wanted.Skipped != "" {
		k.have.Outcome, k.have.Reason = runes.Skipped, want.wanted.Skipped
		k.board.put(k.have)
		return
	}
	for _, f := range want.wanted.Files {
		if f.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.Path, f.Err))
		}
	}
	for _, s := range want.wanted.Services {
		if s.Err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", s.Name, s.Err))
		}
	}
	for _, h := range k.have.Hooks {
		if h.Reason != "" && h.Moment != runes.MomentRoleGained {
			errs = append(errs, errors.New(h.Reason))
		}
	}
	if err := errors.Join(errs...); err != nil {
		k.have.Outcome, k.have.Reason = runes.Degraded, strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	k.board.put(k.have)
}
