package runes

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"viver.lan/internal/mountinfo"
)

// System is the root of a running system, for what runes change in it while it runs.
type System struct{ t *target }

// OpenSystem opens a running root. Where.Run is empty: its /run is mounted there.
func OpenSystem(where Target) (*System, error) {
	t, err := openTarget(where)
	if err != nil {
		return nil, fmt.Errorf("open the running root: %w", err)
	}
	if t.mounts, err = mountinfo.Of(1); err != nil {
		t.mounts = nil // as for a machine that has no process 1 of its own, in tests
	}
	return &System{t}, nil
}

// Close ends the use of the root.
func (s *System) Close() error { return s.t.Close() }

// Wanted is what a bundle wants of a running system, by the facts of one moment.
type Wanted struct {
	// Skipped is why the whole bundle is not wanted here; empty when it is.
	Skipped  string
	Files    []File
	Services []Service
}

// File is a file that is to be as it says.
type File struct {
	Path string
	// Err is why it could not be worked out: what there is of it stays.
	Err error
	// Current is true when the root has it just so.
	Current bool
	// Passing is true when it is taken away as soon as it is not wanted: it is of a
	// role, under /run, or came to a running system. Any other is a file of the
	// distribution's that was changed.
	Passing bool
	// Added is true when it came to a running system: what was in its place is to be
	// kept (Keep), and put back.
	Added bool

	it item
}

// Service is a program that is to run.
type Service struct {
	Name  string
	Role  string // of its rune, that it runs for; "" for none
	Start []string
	Stop  string // the signal, "" for SIGTERM
	User  string // "" for root
	Ports []Port // that it listens on for others
	// Err is why its arguments could not be worked out: what runs of it goes on.
	Err error
}

// Wanted works out what a bundle wants now: files that are live, files and services of
// the roles that facts say this machine holds, and the services of every node.
func (s *System) Wanted(b Bundle, facts Facts) Wanted {
	var w Wanted
	if w.Skipped = s.Skips(b, facts); w.Skipped != "" {
		return w
	}
	sc := scope{t: s.t, b: b, facts: facts}
	held := func(role string) bool {
		ok, err := sc.holds(role)
		return err == nil && ok
	}
	for _, it := range b.items {
		if !it.changes() || len(it.roles) > 0 && !slices.ContainsFunc(it.roles, held) || it.when.unmet(s.t, facts) != "" {
			continue
		}
		f := File{Path: it.path, Passing: len(it.roles) > 0 || it.added || strings.HasPrefix(it.path, "/run/"), Added: it.added}
		f.it, f.Err = rendered(it, sc)
		if f.Err == nil && it.tmpl != nil && len(f.it.data) == 0 && !s.t.exists(it.path) {
			continue // it renders to nothing, and there is no file to correct
		}
		f.Current = f.Err == nil && s.current(f.it)
		w.Files = append(w.Files, f)
	}
	for _, svc := range b.services {
		if svc.role != "" && !held(svc.role) || svc.when.unmet(s.t, facts) != "" {
			continue
		}
		w.Services = append(w.Services, svc.rendered(sc))
	}
	return w
}

// Skips says why a bundle is not wanted on this root, "" when it is.
func (s *System) Skips(b Bundle, facts Facts) string { return b.skips(s.t, facts) }

func (svc service) rendered(sc scope) Service {
	s := Service{Name: svc.name, Role: svc.role, Stop: svc.stop, User: svc.user, Ports: svc.ports}
	for i, tmpl := range svc.start {
		arg, err := execute(tmpl, sc)
		if err != nil {
			s.Err = fmt.Errorf("%s: %w", svc.source[i], err)
			return s
		}
		s.Start = append(s.Start, string(arg))
	}
	if !sc.t.exists(s.Start[0]) {
		s.Err = fmt.Errorf("%s is not in the image", s.Start[0])
	}
	return s
}

// changes reports whether the item may be another one while the system runs.
func (it item) changes() bool { return it.live || len(it.roles) > 0 }

func (s *System) current(it item) bool {
	resolved, err := s.t.resolveParent(it.path)
	if err != nil {
		return false
	}
	if it.link == "" {
		return s.t.same(resolved, it.mode, it.data)
	}
	r, name := s.t.at(resolved)
	old, err := r.Readlink(name)
	return err == nil && old == it.link
}

// Lay puts a wanted file in place.
func (s *System) Lay(b Bundle, f File) error {
	if f.Err != nil {
		return f.Err
	}
	return s.t.lay(f.it, b.dirModes)
}

// Remove takes a file away that was wanted. What is there no more is removed already.
func (s *System) Remove(path string) error { return s.t.remove(path) }

// Exists reports whether a path, links followed, is in the root.
func (s *System) Exists(path string) bool { return s.t.exists(path) }

// Owners says for each path that changes while the system runs which bundle lays it. Two
// that lay one path are an error that names both; the first in order has it.
func Owners(bundles []Bundle) (map[string]string, error) {
	owners := make(map[string]string)
	var errs []error
	for _, b := range Merge(bundles) {
		for _, it := range b.items {
			if !it.changes() {
				continue
			}
			if other, taken := owners[it.path]; taken {
				errs = append(errs, fmt.Errorf("the runes %s and %s both lay %s while the system runs: %s has it", other, b.Name, it.path, other))
				continue
			}
			owners[it.path] = b.Name
		}
	}
	return owners, errors.Join(errs...)
}

// Hook is a program of a bundle for one moment of the running system.
type Hook struct {
	// Program is what is to be written to a file; Interpreter what runs that file, with
	// its argument, none for a binary.
	Program     []byte
	Interpreter []string
	// Env are the facts and the bundle's settings.
	Env []string
}

// Hook returns the bundle's program for a moment, and whether there is one. role is the
// role that was gained or lost, "" at other moments.
func (b Bundle) Hook(m Moment, facts Facts, role string) (Hook, bool) {
	h, ok := b.hooks[m]
	if !ok {
		return Hook{}, false
	}
	env := append(b.environment(facts), "VIVER_MOMENT="+string(m))
	if role != "" {
		env = append(env, "VIVER_ROLE="+role)
	}
	return Hook{Program: h.data, Interpreter: h.interpreter, Env: env}, true
}

// Equal reports whether two bundles are the same, with the same settings.
func (b Bundle) Equal(other Bundle) bool {
	return b.Name == other.Name && maps.Equal(b.values, other.values) && maps.EqualFunc(b.tree, other.tree, func(x, y node) bool {
		return x.exec == y.exec && x.link == y.link && bytes.Equal(x.data, y.data)
	})
}

// AllLive returns the bundle with all its files as files that change while the system
// runs: it comes to a system that did not boot with it. What its path is a template of
// is laid at the next boot, as its hook root runs then.
func (b Bundle) AllLive() Bundle {
	b.items = slices.Clone(b.items)
	for i := range b.items {
		b.items[i].live, b.items[i].added = b.items[i].name == nil, true
	}
	return b
}

// NextBoot says what of a bundle a running system does not get, in words.
func (b Bundle) NextBoot() (list []string) {
	if _, ok := b.hooks[MomentRoot]; ok {
		list = append(list, "its hook root runs")
	}
	for _, it := range b.items {
		if it.name != nil {
			list = append(list, it.path+" is laid")
		}
	}
	return list
}
