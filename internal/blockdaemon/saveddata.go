package blockdaemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/durable"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/keyfile"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/operator"
	"viver.lan/internal/sleep"
)

// overridesFile is where a saved-data disk has the operator's overrides, beside the
// directories of the images: they belong to the network, not to an image.
const overridesFile = operator.SavedFile

// savedDataDir is the marked folder of the saved-data disk as a process sees it. The
// root stage mounts that disk for process 1, whose mount namespace is not ours.
func savedDataDir(pid int) string {
	return filepath.Join("/proc", strconv.Itoa(pid), "root", control.SavedDir, disks.Marker)
}

// overrideTable is this node's copy of the operator's overrides. It checks
// signatures and knows which of two is newer.
type overrideTable interface {
	Overrides() []operator.Override
	Put(operator.Override) error
	// Network is the name of the network that the overrides are for, "" while it
	// has none.
	Network() string
	// Watch tells of changes of all that, see cluster.Cluster.
	Watch() (changed <-chan struct{}, stop func())
}

// savedData puts on the saved-data disk, if there is one, what shall outlive the
// last machine that is on: the operator's overrides, the name of the network, and
// this machine's key. Overrides are signed: whoever writes to the disk can take
// some away, and add none.
type savedData struct {
	dir       string // may appear later or never
	overrides overrideTable
	key       identity.Key // zero: none is saved
	mac       ether.MAC
	start     uint64
	log       *slog.Logger

	loaded   bool                // the disk's overrides are in the table
	identity bool                // the disk has a key of this machine
	network  string              // the name that the disk has
	foreign  []operator.Override // for other networks, which the disk was in before
	text     []byte              // of the file of overrides
	awaits   bool                // the disk has not the live layer yet that the owner wants
}

// maxOverrides is the most that the file may take, in bytes: all overrides of
// eight networks.
const maxOverrides = 8 * operator.MaxOverrides * operator.MaxSize

// errDiskFull prevents that overrides for other networks are lost.
var errDiskFull = fmt.Errorf("the file %s of the saved-data disk is full of overrides for other networks (it may have %d bytes): it stays as it is; delete it if those networks are no more", overridesFile, maxOverrides)

// saveEvery is how often we look for the disk, which appears without notice, try again
// after an error, and write at most: it may be a slow stick.
const saveEvery = 2 * time.Second

// run saves what is new until ctx ends. A disk that is slow or full stops nothing
// else.
func (d *savedData) run(ctx context.Context) error {
	changed, stop := d.overrides.Watch()
	defer stop()
	logged := ""
	for {
		err := d.sync()
		if err != nil && err.Error() != logged {
			logged = err.Error()
			d.log.Warn("the operator's overrides are not on the saved-data disk", "error", err)
		}
		if sleep.For(ctx, saveEvery) != nil {
			return nil
		}
		if err != nil || !d.loaded || d.awaits {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// sync takes what the disk holds, once, and from then on writes what is new.
func (d *savedData) sync() error {
	if fi, err := os.Lstat(d.dir); err != nil || !fi.IsDir() {
		return nil // no such disk, or not yet
	}
	if err := d.saveKey(); err != nil {
		return err
	}
	if d.overrides.Network() == "" {
		return nil // the disk's overrides cannot be judged yet
	}
	if !d.loaded {
		if err := d.load(); err != nil {
			return err
		}
		d.loaded = true
	}
	if err := d.saveNetworkName(); err != nil {
		return err
	}
	return d.saveOverrides()
}

// saveKey saves this machine's key, and the number of this start, for the next
// boot. A key of this machine that is there already came too late for this boot,
// and is used in the next.
func (d *savedData) saveKey() error {
	if d.identity || d.key.IsZero() {
		return nil
	}
	file := filepath.Join(d.dir, keyfile.NameFor(d.mac))
	there, err := keyfile.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		there, err = d.key, keyfile.Write(file, d.key)
	}
	if err == nil && there.ID() == d.key.ID() {
		err = keyfile.WriteStart(keyfile.SequenceFor(file), d.start)
	}
	if err != nil {
		return err
	}
	d.identity = true
	return nil
}

func (d *savedData) saveNetworkName() error {
	name := d.overrides.Network()
	if name == d.network {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(d.dir, disks.NetworkNameFile), []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	d.network = name
	return nil
}

func (d *savedData) saveOverrides() error {
	text := operator.AppendAll(operator.AppendAll(nil, d.useful(d.overrides.Overrides())), d.foreign)
	if bytes.Equal(text, d.text) {
		return nil
	}
	if len(text) > maxOverrides {
		return errDiskFull
	}
	if err := durable.WriteFile(filepath.Join(d.dir, overridesFile), text, 0o644); err != nil {
		return err
	}
	d.text = text
	return nil
}

// useful are the overrides that the disk is to have. As long as it lacks the layer of a newer
// one, it keeps the one whose layer it may have: after a power cut no other node might.
func (d *savedData) useful(overrides []operator.Override) []operator.Override {
	i := slices.IndexFunc(overrides, func(o operator.Override) bool { return o.Key == livelayer.Key })
	d.awaits = i >= 0 && !d.hasLayer(overrides[i])
	if !d.awaits {
		return overrides
	}
	saved, _ := operator.ParseAll(d.text, len(d.text))
	saved = slices.DeleteFunc(saved, func(o operator.Override) bool {
		return o.Key != livelayer.Key || o.Network != overrides[i].Network
	})
	return slices.Replace(overrides, i, i+1, saved...)
}

// hasLayer reports whether the disk has the layer that an override points to, if it points
// to any.
func (d *savedData) hasLayer(o operator.Override) bool {
	p, err := livelayer.ParsePointer(o.Value)
	if err != nil || p == (livelayer.Pointer{}) {
		return true
	}
	_, err = os.Lstat(livestore.Path(filepath.Join(d.dir, livestore.SavedDir), p.Digest))
	return err == nil
}

// load tells all nodes what the disk holds. Overrides for other networks count
// nothing here and stay on the disk, for when it is back there; their signatures
// are checked then. What is damaged, another owner's or older than what is known is
// gone with the next write.
func (d *savedData) load() error {
	text, err := readOverrides(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	saved, damage := operator.ParseAll(text, len(text)) // its size bounds them
	taken := 0
	d.foreign = nil
	for _, o := range saved {
		switch err := d.overrides.Put(o); {
		case err == nil:
			taken++
		case errors.Is(err, operator.ErrNetwork):
			d.foreign = append(d.foreign, o)
		case !errors.Is(err, operator.ErrKnown) && !errors.Is(err, operator.ErrOlder):
			d.log.Warn("an override on the saved-data disk is not taken", "key", o.Key, "error", err)
		}
	}
	d.log.Info("overrides read from the saved-data disk", "overrides", len(saved), "new", taken,
		"of_other_networks", len(d.foreign), "error", damage)
	d.text = text
	return nil
}

// readOverrides reads the file, which has to be a regular one: a link would lead
// out of the disk.
func readOverrides(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fi, err := root.Lstat(overridesFile)
	switch {
	case err != nil || !fi.Mode().IsRegular():
		return nil, errors.Join(err, os.ErrNotExist)
	case fi.Size() > maxOverrides:
		return nil, errDiskFull
	}
	return root.ReadFile(overridesFile)
}
