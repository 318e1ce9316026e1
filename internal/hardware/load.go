package hardware

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/decompress"
)

// Kernel is what loading modules needs of the machine.
type Kernel interface {
	Path(name string) string
	InsertModule(path, params string) error
	InsertModuleBytes(image []byte, params string) error
}

// Options are what modprobe(8) takes from the kernel command line.
type Options struct {
	// Params holds "key=value key=value" for a module's name.
	Params map[string]string
	// Blacklist names modules that are not loaded because a device asks for
	// them (modprobe.blacklist=); asking by name still loads them.
	Blacklist []string
	// Later says of a module's file, below the tree, that the module is left to
	// Finish when a device asks for it; nil leaves none.
	Later func(file string) bool
	// Log receives one line per module that could not be loaded; nil discards.
	Log *slog.Logger
}

// Report is the result of a search for drivers.
type Report struct {
	// Devices that are new.
	Devices int
	// Passes over the device tree until nothing new appeared.
	Passes int
	// Loaded modules, in order.
	Loaded []string
	// Failed holds one error per module that the kernel or the disk refused.
	Failed []error
	// ToCome are modules that were asked for and whose files, or those of what
	// they need, are not here yet.
	ToCome []string
}

// String implements fmt.Stringer.
func (r Report) String() string {
	s := fmt.Sprintf("%d devices, %d modules in %d passes", r.Devices, len(r.Loaded), r.Passes)
	if len(r.Failed) > 0 {
		s += fmt.Sprintf(", %d modules failed", len(r.Failed))
	}
	if len(r.ToCome) > 0 {
		s += fmt.Sprintf(", %d modules are not here yet", len(r.ToCome))
	}
	return s
}

// Loader loads modules of one tree. It tries each module once and is safe for
// concurrent use.
type Loader struct {
	kernel Kernel
	tree   *Tree
	opts   Options

	search sync.Mutex // held for the whole of a Coldplug

	mu     sync.Mutex
	done   map[string]*outcome // per module
	seen   map[string]bool     // modaliases that were handled
	newest time.Time           // when the last of them was, or a module was loaded
	toCome []string            // modules that were asked for before their files were here
	later  []string            // modules that were asked for and are left to Finish
	all    bool                // Finish was called
}

// NewLoader returns a loader of tree's modules.
func NewLoader(k Kernel, tree *Tree, opts Options) *Loader {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Blacklist = slices.Clone(opts.Blacklist)
	for i, name := range opts.Blacklist {
		opts.Blacklist[i] = underscores(name)
	}
	params := make(map[string]string, len(opts.Params))
	for name, p := range opts.Params {
		params[underscores(name)] = p
	}
	opts.Params = params
	return &Loader{kernel: k, tree: tree, opts: opts, done: make(map[string]*outcome), seen: make(map[string]bool)}
}

// maxPasses bounds Coldplug; real machines need two or three.
const maxPasses = 10

// Coldplug loads the modules of all devices that are present, again and again
// until no device appears that was not there before: a bus that got its driver
// reveals the devices on it. Later calls handle only new devices. A call waits for
// one that is running, so that afterwards all present devices have been handled.
func (l *Loader) Coldplug(ctx context.Context) Report {
	l.search.Lock()
	defer l.search.Unlock()
	return l.loadAll(ctx, nil)
}

// Finish loads what was left for later, and from now on leaves nothing: some drivers
// need seconds until their disks have answered. It waits as Coldplug does.
func (l *Loader) Finish(ctx context.Context) Report {
	l.search.Lock()
	defer l.search.Unlock()
	l.mu.Lock()
	names := l.later
	l.later, l.all = nil, true
	l.mu.Unlock()
	return l.loadAll(ctx, names)
}

// loadAll loads modules by their names, and then what new devices ask for.
func (l *Loader) loadAll(ctx context.Context, names []string) Report {
	var r Report
	for _, name := range names {
		l.load(name, &r)
	}
	for r.Passes < maxPasses && ctx.Err() == nil {
		fresh := l.fresh()
		if len(fresh) == 0 {
			break
		}
		r.Passes++
		r.Devices += len(fresh)
		for _, modalias := range fresh {
			for _, name := range l.tree.Match(modalias) {
				if !slices.Contains(l.opts.Blacklist, name) && !l.tree.conf.blacklist[name] && !l.leave(name) {
					l.load(name, &r)
				}
			}
		}
	}
	return r
}

// Load loads modules by name or alias, with everything they need. The error
// joins one sentence for each name that is not usable afterwards; a name that
// is built into the kernel is.
func (l *Loader) Load(ctx context.Context, names ...string) (Report, error) {
	var r Report
	var errs []error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		found, err := l.tree.lookup(name)
		if err != nil {
			if !l.present(underscores(name)) {
				errs = append(errs, fmt.Errorf("load module %w", err))
			}
			continue
		}
		for _, n := range found {
			if err := l.load(n, &r); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return r, errors.Join(errs...)
}

// fresh returns the modaliases of devices that were not handled yet.
func (l *Loader) fresh() []string {
	// Every device that udev would announce hangs on a bus; the machine's own
	// identity is the one useful modalias that does not.
	devices, _ := filepath.Glob(l.kernel.Path("/sys/bus/*/devices/*"))
	devices = append(devices, l.kernel.Path("/sys/class/dmi/id"))
	l.mu.Lock()
	defer l.mu.Unlock()
	var fresh []string
	for _, device := range devices {
		modalias := modaliasOf(device) // a longer pattern would list each directory
		if modalias == "" || l.seen[modalias] {
			continue // the device may just have left
		}
		l.seen[modalias] = true
		l.newest = time.Now()
		fresh = append(fresh, modalias)
	}
	return fresh
}

// modaliasOf returns a device's modalias, "" when it has none or has just left. SD cards and
// eMMC say it in their events only.
func modaliasOf(device string) string {
	if filepath.Base(filepath.Dir(filepath.Dir(device))) != "mmc" {
		return line(device, "modalias")
	}
	for text := range strings.Lines(line(device, "uevent")) {
		if modalias, ok := strings.CutPrefix(strings.TrimSpace(text), "MODALIAS="); ok {
			return modalias
		}
	}
	return ""
}

// Match returns the modules that claim a device with this modalias.
func (l *Loader) Match(modalias string) []string { return l.tree.Match(modalias) }

// Newest returns when the last new device was noticed, or module loaded.
func (l *Loader) Newest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// ErrNotHere marks a module that the tables know and whose file is not there.
var ErrNotHere = errors.New("its file is not here")

// Missing returns the modules that devices or callers asked for and whose files,
// or those of what they need, are not here yet.
func (l *Loader) Missing() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.toCome)
}

// Resume is called when files of modules have come. It loads those that were
// asked for without them, and then what new devices ask for.
func (l *Loader) Resume(ctx context.Context) Report {
	l.mu.Lock()
	names := l.toCome
	l.toCome = nil
	maps.DeleteFunc(l.done, func(_ string, o *outcome) bool { return errors.Is(o.err, ErrNotHere) })
	l.mu.Unlock()
	l.search.Lock()
	defer l.search.Unlock()
	return l.loadAll(ctx, names)
}

// leave reports whether a module is left to Finish, and notes it.
func (l *Loader) leave(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all || l.opts.Later == nil || !l.opts.Later(l.tree.modules[name].file) {
		return false
	}
	if !slices.Contains(l.later, name) {
		l.later = append(l.later, name)
	}
	return true
}

// load loads one module and what it needs, in order.
func (l *Loader) load(name string, r *Report) error {
	err := l.loadOrdered(name, r)
	if !errors.Is(err, ErrNotHere) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.toCome, name) {
		l.toCome = append(l.toCome, name)
		r.ToCome = append(r.ToCome, name)
	}
	return err
}

func (l *Loader) loadOrdered(name string, r *Report) error {
	for _, n := range l.tree.order(name) {
		if err := l.loadOnce(n.name, r); err != nil && n.hard {
			if n.name != name {
				err = fmt.Errorf("load module %s, which needs %s: %w", name, n.name, err)
			}
			return err
		}
	}
	return nil
}

// outcome is what became of a module.
type outcome struct {
	once sync.Once
	err  error // written with Loader.mu held
}

// loadOnce loads a module unless that was tried, or waits for who tries it. Meanwhile
// others are loaded: a driver for disks may come back when they have answered only.
func (l *Loader) loadOnce(name string, r *Report) error {
	l.mu.Lock()
	o := l.done[name]
	if o == nil {
		o = new(outcome)
		l.done[name] = o
	}
	l.mu.Unlock()
	o.once.Do(func() {
		if l.present(name) {
			return
		}
		err := l.insert(name)
		l.mu.Lock()
		defer l.mu.Unlock()
		switch o.err = err; {
		case err == nil:
			r.Loaded = append(r.Loaded, name)
			l.newest = time.Now()
		case !errors.Is(err, ErrNotHere):
			r.Failed = append(r.Failed, err)
			l.opts.Log.Warn("module not loaded", "module", name, "error", err)
		}
	})
	return o.err
}

// present reports whether the kernel has a module running or built in.
func (l *Loader) present(name string) bool {
	dir := l.kernel.Path("/sys/module/" + name)
	if _, err := os.Stat(dir); err != nil {
		return false
	}
	state, err := os.ReadFile(filepath.Join(dir, "initstate"))
	return err != nil || strings.TrimSpace(string(state)) == "live" // no state: built in
}

func (l *Loader) insert(name string) error {
	if err := l.tree.conf.refused(name); err != nil {
		return err
	}
	params := join(l.tree.conf.params[name], l.opts.Params[name])
	file := filepath.Join(l.tree.dir, l.tree.modules[name].file)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("load module %s: %w", name, ErrNotHere)
	}
	var err error
	if filepath.Ext(file) == ".ko" {
		err = l.kernel.InsertModule(file, params)
	} else {
		var image []byte
		if image, err = os.ReadFile(file); err == nil {
			image, err = decompress.Decompress(image, filepath.Ext(file))
		}
		if err == nil {
			err = l.kernel.InsertModuleBytes(image, params)
		}
	}
	if err != nil {
		return fmt.Errorf("load module %s: %w%s", name, err, explain(err))
	}
	return nil
}

// explain says what the kernel's error for a module means.
func explain(err error) string {
	switch {
	case errors.Is(err, unix.ENODEV):
		return " (the module finds nothing to drive on this machine)"
	case errors.Is(err, unix.ENOEXEC):
		return " (built for another kernel, or damaged)"
	case errors.Is(err, unix.ENOENT):
		return " (the file, or a symbol it needs, is missing)"
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.EPERM):
		return " (Secure Boot is on and the kernel does not trust the module's signature)"
	}
	return ""
}
