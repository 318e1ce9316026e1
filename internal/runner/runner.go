// Package runner is @vrune: it carries out what runes ask of a running machine. It
// follows the block daemon's status, works out which roles of the runes this machine
// holds, and gives each rune the files, services and hooks that go with them.
//
// It keeps no state but a file under /run, from which a process that is started after it
// goes on; services and files stay when it ends. It lays nothing before the
// distribution's init starts (package runes does) and it serves nobody. It decides alone,
// from the same members and rules as every other node (package roles).
//
// The invariant: what a rune has on this machine is in that file before or as soon as it
// is there, so it is taken away when it is not wanted, whoever runs by then.
package runner

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/booted"
	"viver.lan/internal/control"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
	"viver.lan/internal/sleep"
	"viver.lan/internal/supervise"
)

// observeEvery is the time between two looks at the services: what systemd or the kernel
// does to them comes without notice.
const observeEvery = 10 * time.Second

// Network is what the runner needs of the block daemon.
type Network interface {
	// WatchMembers calls take with the block daemon's status, as far as it is about the
	// members, whenever it has changed (control.Client).
	WatchMembers(ctx context.Context, take func(*control.Status, error) error) error
	// SetRoles says which roles this machine holds.
	SetRoles(ctx context.Context, held []roles.Name) error
}

// Config says what the runner works with.
type Config struct {
	Log     *slog.Logger
	Network Network
	// System is the booted system.
	System booted.System
	// Dir is the directory for state, control.RunDir on a node, the same in the system;
	// uinit's Start is there, in StartFile.
	Dir string
	// Bundles reads the runes in use; those that are broken are in the error.
	Bundles func() ([]runes.Bundle, error)
	// Layer reads a live layer; nil where there is none.
	Layer func(livelayer.Digest) (livelayer.Layer, error)

	settled bool // for tests: the members are known from the first word on
}

// Names of files in Dir.
const (
	StartFile = "runner.json" // of uinit
	StateFile = "runes.json"  // of the runner
)

// Run runs until ctx ends. Services and files stay then.
func Run(ctx context.Context, c Config) error {
	start, err := ReadStart(filepath.Join(c.Dir, StartFile))
	if err != nil {
		return err
	}
	state, err := ReadState(filepath.Join(c.Dir, StateFile))
	if err != nil {
		c.Log.Warn("the state of an earlier process is lost", "error", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	kept, err := c.services(ctx, initsystem.Kind(start.Facts.Init))
	if err != nil {
		return err
	}
	r := &runner{
		config: c, start: start, keepers: make(map[string]*running), group: g,
		tools: tools{
			open: func() (*runes.System, error) { return runes.OpenSystem(runes.Target{Root: c.System.Root()}) },
			hooks: hookRunner{system: c.System, dir: filepath.Join(c.Dir, "hooks"), cgroup: cgroupTop(c.System),
				limit: hookTimeout, init: initsystem.Kind(start.Facts.Init), command: runIn(c.System)},
			services: kept,
			board:    &board{file: filepath.Join(c.Dir, StateFile), ports: filepath.Join(c.Dir, filepath.Base(control.PortsFile)), log: c.Log, state: state},
			log:      c.Log,

			originals: filepath.Join(c.Dir, "originals"),
		},
		settled: settling{done: c.settled, before: state.Settled}, peopleChanged: make(chan people, 1),
		missing: make(chan []string),
	}
	words := make(chan word, 1)
	g.Go(func() error { return c.watch(ctx, words) })
	g.Go(func() error { return r.observe(ctx) })
	g.Go(func() error { return r.keepAccounts(ctx) })
	g.Go(func() error { return r.follow(ctx, words) })
	err = g.Wait()
	if o, ok := kept.(*own); ok {
		o.close()
	}
	return err
}

// cgroupTop is below which programs get cgroups of their own.
func cgroupTop(s booted.System) string { return filepath.Join(s.Root(), "sys/fs/cgroup/viver-runes") }

// services are those of the machine's init, or our own.
func (c *Config) services(ctx context.Context, init initsystem.Kind) (services, error) {
	if init == initsystem.Systemd {
		return systemd{run: runIn(c.System)}, nil
	}
	return newOwn(ctx, &own{
		system: c.System, dir: filepath.Join(c.Dir, "services"), cgroup: cgroupTop(c.System), backoff: time.Second, log: c.Log,
		shuttingDown: func() bool { return supervise.ShuttingDown(filepath.Join(c.System.Process, "cmdline")) },
	})
}

// word is what the block daemon says.
type word struct {
	status *control.Status
	// again says that there was a time without one before: it knows the members only
	// after a while.
	again bool
}

// watch keeps the newest word in the channel.
func (c *Config) watch(ctx context.Context, words chan word) error {
	var next word
	return c.Network.WatchMembers(ctx, func(s *control.Status, err error) error {
		if err != nil {
			c.Log.Warn("the block daemon does not answer; roles and services stay", "error", err)
			next.again = true
			return nil
		}
		next.status = s
		select {
		case old := <-words:
			next.again = next.again || old.again
		default:
		}
		words <- next // the only writer: there is room
		next = word{}
		return nil
	})
}

// running is a keeper with its life.
type running struct {
	*keeper
	stop  context.CancelFunc
	ended chan struct{}
}

// runner is the state of Run. Its fields belong to follow.
type runner struct {
	tools
	config        Config
	start         Start
	group         *errgroup.Group
	bundles       []runes.Bundle // that live
	problems      []string       // of reading them
	people        people         // of all bundles, without facts
	peopleChanged chan people    // holds the newest one that was not taken
	keepers       map[string]*running
	settled       settling
	shown         view
	missing       chan []string // runes that have services which ended for good
	layer         livelayer.Digest
	added         livelayer.Layer // the layer of that digest
}

// follow shows the keepers what changes.
func (r *runner) follow(ctx context.Context, words <-chan word) error {
	layer := cmp.Or(r.board.layer(), r.start.Layer)
	lacking := layer != (livelayer.Digest{}) && !r.use(layer)
	if !lacking { // else what is there stays until the layer is
		r.read(ctx)
	}
	var status *control.Status
	settle := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case w := <-words:
			if status = w.status; w.again {
				r.settled.lost()
			}
		case names := <-r.missing: // their services are started again
			for _, name := range names {
				if k := r.keepers[name]; r.shown.up && k != nil && k.bundle.Lives() { // else nothing is known, and all would be stopped
					k.show(r.shown)
				}
			}
			continue
		case <-settle.C:
		}
		if status == nil {
			continue
		}
		if d, known := r.start.layerFor(status, layer); known && (lacking || d != layer) && r.use(d) {
			layer, lacking = d, false
			r.read(ctx)
			r.shown = view{}
		}
		if lacking {
			continue
		}
		if wait := r.settled.saw(ids(*status), time.Now()); wait > 0 {
			settle.Reset(wait)
			if r.settled.before {
				continue // what is there stays until it is known to be wrong
			}
		}
		r.take(ctx, status)
	}
}

// read reads the runes in use, and has a keeper for each that lives and for each that is
// gone and left something.
func (r *runner) read(ctx context.Context) {
	all, err := r.config.Bundles()
	r.people.whole = err == nil
	problems := []error{err}
	all, err = runes.Without(all, r.start.Off)
	problems = append(problems, err)
	all, settings, errs := livechange.Over(all, r.start.Settings, r.added, runes.Bundle.AllLive) // the machine has not booted with them
	problems = append(problems, errs...)
	r.people.whole = r.people.whole && len(errs) == 0
	all, err = runes.Configure(all, settings)
	problems = append(problems, err)
	r.people.bundles = slices.Clone(all)
	r.bundles = slices.DeleteFunc(all, func(b runes.Bundle) bool { return !b.Lives() })
	owners, err := runes.Owners(r.bundles)
	problems = append(problems, err)
	r.problems = nil
	for _, err := range problems {
		if err != nil {
			r.log.Warn("runes", "error", err)
			r.problems = append(r.problems, err.Error())
		}
	}
	r.board.change(func(s *State) { s.Layer, s.Problems = r.layer, r.problems })
	for name, k := range r.keepers {
		i := slices.IndexFunc(r.bundles, func(b runes.Bundle) bool { return b.Name == name })
		if i < 0 || !k.bundle.Equal(r.bundles[i]) || !reflect.DeepEqual(k.refused, refused(owners, name)) {
			k.stop()
			<-k.ended
			delete(r.keepers, name)
		}
	}
	for _, b := range r.bundles {
		if r.keepers[b.Name] == nil {
			r.startKeeper(ctx, b, refused(owners, b.Name))
		}
	}
	for _, name := range r.board.names() {
		if r.keepers[name] == nil {
			r.startKeeper(ctx, runes.Bundle{Name: name}, nil).show(view{gone: true})
		}
	}
}

// refused are the paths that others than this rune lay, with the reason.
func refused(owners map[string]string, bundle string) map[string]string {
	list := make(map[string]string)
	for path, owner := range owners {
		if owner != bundle {
			list[path] = "the rune " + owner + " lays it"
		}
	}
	return list
}

// startKeeper begins to keep a rune.
func (r *runner) startKeeper(ctx context.Context, b runes.Bundle, refused map[string]string) *running {
	ctx, cancel := context.WithCancel(ctx)
	k := &running{&keeper{tools: r.tools, bundle: b, refused: refused, views: make(chan view, 1), have: r.board.get(b.Name)}, cancel, make(chan struct{})}
	r.keepers[b.Name] = k
	r.group.Go(func() error {
		defer close(k.ended)
		if err := k.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	return k
}

// take works out from a status what the runes are to be, and shows it when it is
// something else than before.
func (r *runner) take(ctx context.Context, s *control.Status) {
	facts, _ := factsOf(r.start.Facts, *s, nil)
	offers, err := r.offers(facts)
	if err != nil {
		r.log.Warn("roles are not given away", "error", err)
		return
	}
	var held, over []roles.Name
	if r.settled.done {
		pins, invalid := s.Pins()
		for _, err := range invalid {
			r.log.Warn("pins of roles", "error", err)
		}
		held, over = roles.Claimable(roles.Assign(offers, s.RoleNodes(), pins).Of(s.ID))
		r.claim(ctx, s, held)
	}
	facts, wrong := factsOf(r.start.Facts, *s, held)
	for _, err := range wrong {
		r.log.Warn("a fact is not given to runes", "error", err)
	}
	r.board.change(func(st *State) {
		st.Settled, st.Roles, st.Held, st.Problems = r.settled.done, offers, held, append(slices.Clone(r.problems), tooMany(over)...)
	})
	v := view{facts: facts, members: digest(facts.Members, facts.Unconfirmed), up: r.settled.done && s.Up != ""}
	if reflect.DeepEqual(v, r.shown) {
		return
	}
	r.shown = v
	now := r.people
	now.facts = facts
	now.whole = now.whole && r.settled.done && (s.Live == nil || s.Live.Digest == r.layer)
	latest(r.peopleChanged, now)
	for _, k := range r.keepers {
		if k.bundle.Lives() {
			k.show(v)
		}
	}
}

// offers are the roles of the runes that are wanted on this machine.
func (r *runner) offers(facts runes.Facts) ([]roles.Offer, error) {
	system, err := r.open()
	if err != nil {
		return nil, err
	}
	defer system.Close() // opened for reading: nothing can be lost
	list := []roles.Offer{}
	for _, b := range r.bundles {
		if system.Skips(b, facts) == "" {
			list = append(list, b.Offers()...)
		}
	}
	return list, nil
}

// claim tells the block daemon which roles this machine holds, if it says something else
// to the members.
func (r *runner) claim(ctx context.Context, s *control.Status, held []roles.Name) {
	i := slices.IndexFunc(s.Members, func(m control.Member) bool { return m.ID == s.ID })
	if i >= 0 && s.Members[i].TakesRoles && slices.Equal(s.Members[i].Roles, held) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.config.Network.SetRoles(ctx, held); err != nil {
		r.log.Warn("the members are not told which roles this machine holds", "error", err)
	}
}

// observe looks at the services from time to time.
func (r *runner) observe(ctx context.Context) error {
	for {
		if err := sleep.For(ctx, observeEvery); err != nil {
			return err
		}
		units := r.board.units()
		if len(units) == 0 {
			continue
		}
		conditions, err := r.services.conditions(ctx, units)
		if err != nil {
			if ctx.Err() == nil {
				r.log.Warn("the services' state is not known", "error", err)
			}
			continue
		}
		if missing := r.board.observe(conditions); len(missing) > 0 {
			select {
			case r.missing <- missing:
			case <-ctx.Done():
			}
		}
	}
}
