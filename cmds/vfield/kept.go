package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/durable"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/operator"
)

// keptFile is where a saved-data disk keeps what the operator said, beside the
// directories of the images: it is of the network, not of an image.
const keptFile = "entries"

// savedData is the marked folder of the saved-data disk as a process sees it. The
// root stage mounts that disk for process 1, whose mount namespace is not ours.
func savedData(pid int) string {
	return filepath.Join("/proc", strconv.Itoa(pid), "root", control.SavedDir, disks.Marker)
}

// entryTable is this node's copy of the operator's entries. It checks signatures
// and knows what is newer.
type entryTable interface {
	Entries() []operator.Override
	Put(operator.Override) error
	// Network is the name of the network that the entries are for, "" while it has
	// none.
	Network() string
}

// kept keeps on the saved-data disk, if there is one, what shall outlive the last
// machine that is on: the operator's entries, the name of the network, and this
// machine's key. The entries are signed: whoever writes to the disk can take some
// away, and add none.
type kept struct {
	dir   string // the folder, which may appear later or never
	table entryTable
	key   identity.Key // none: none is kept
	mac   ether.MAC
	start uint64
	log   *slog.Logger

	read     bool                // the disk was
	identity bool                // the key is on it
	network  string              // whose name is on it
	others   []operator.Override // of other networks, which the disk was in before
	text     []byte              // of the file
}

// maxKept is the most that the file may take, in bytes: all entries of eight
// networks.
const maxKept = 8 * operator.MaxOverrides * operator.MaxSize

// errKeptFull keeps entries of other networks from being lost.
var errKeptFull = fmt.Errorf("the file %s of the saved-data disk is full of other networks' entries (it may have %d bytes): it stays as it is; take it away if those networks are no more", keptFile, maxKept)

// keepEvery is how often we look whether there is something to keep.
const keepEvery = 2 * time.Second

// run keeps them until ctx ends. A disk that is slow or full stops nothing else.
func (k *kept) run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := k.look(); err != nil && err.Error() != said {
			said = err.Error()
			k.log.Warn("what the operator says is not kept on disk", "why", err)
		}
	}
}

// look takes what the disk holds, once, and from then on writes what is new.
func (k *kept) look() error {
	if fi, err := os.Lstat(k.dir); err != nil || !fi.IsDir() {
		return nil // no such disk, or not yet
	}
	if err := k.keepIdentity(); err != nil {
		return err
	}
	if k.table.Network() == "" {
		return nil // the entries of the disk cannot be judged yet
	}
	if !k.read {
		if err := k.readDisk(); err != nil {
			return err
		}
		k.read = true
	}
	if err := k.keepNetwork(); err != nil {
		return err
	}
	text := operator.AppendAll(operator.AppendAll(nil, k.table.Overrides()), k.others)
	if bytes.Equal(text, k.text) {
		return nil
	}
	if len(text) > maxKept {
		return errKeptFull
	}
	if err := durable.WriteFile(filepath.Join(k.dir, keptFile), text, 0o644); err != nil {
		return err
	}
	k.text = text
	return nil
}

// keepIdentity keeps this machine's key, and the number of this start, for the next
// boot. A key of this machine's that is there already came too late to be used in
// this boot, and is used in the next.
func (k *kept) keepIdentity() error {
	if k.identity || k.key.IsZero() {
		return nil
	}
	file := filepath.Join(k.dir, identity.FileOf(k.mac))
	there, err := identity.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		there, err = k.key, k.key.Write(file)
	}
	if err == nil && there.ID() == k.key.ID() {
		err = identity.WriteStart(identity.SequenceOf(file), k.start)
	}
	if err != nil {
		return err
	}
	k.identity = true
	return nil
}

// keepNetwork keeps the name of the network.
func (k *kept) keepNetwork() error {
	name := k.table.Network()
	if name == k.network {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(k.dir, disks.NetworkFile), []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	k.network = name
	return nil
}

// readDisk tells all nodes what the disk holds. Entries of other networks count
// nothing here and stay on the disk, for when it is back there; their signatures
// are checked then. What is damaged, another owner's or older than what is known is
// gone with the next write.
func (k *kept) readDisk() error {
	text, err := readKept(k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, damage := operator.ParseAll(text, len(text)) // its size bounds them
	taken := 0
	k.others = nil
	for _, e := range entries {
		switch err := k.table.Put(e); {
		case err == nil:
			taken++
		case errors.Is(err, operator.ErrNetwork):
			k.others = append(k.others, e)
		case !errors.Is(err, operator.ErrKnown) && !errors.Is(err, operator.ErrOlder):
			k.log.Warn("a kept entry of the operator is not taken", "key", e.Key, "why", err)
		}
	}
	k.log.Info("what the operator said is read from the saved-data disk", "entries", len(entries), "news", taken,
		"of_other_networks", len(k.others), "damage", damage)
	k.text = text
	return nil
}

// readKept reads the file, which has to be one: a link would lead out of the
// disk.
func readKept(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if fi, err := root.Lstat(keptFile); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, os.ErrNotExist)
	}
	f, err := root.Open(keptFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKept+1))
	if err == nil && len(text) > maxKept {
		return nil, errKeptFull
	}
	return text, err
}
