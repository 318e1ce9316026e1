package diskroot

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"viver.lan/internal/hosttool"
	"viver.lan/internal/thread"
)

// Found is an installed Linux on a disk, as List has it.
type Found struct {
	// Ref is what Open takes to choose it.
	Ref string
	// Name is that of its distribution.
	Name string
	// FSType is what it lies on, such as ext4, and Size how large that is, in bytes.
	FSType string
	Size   int64
}

// List returns all installed Linuxes of a disk, which is read as Open reads it. locked says that there is
// something encrypted on it, in which there may be others. dir is as for Open.
func List(ctx context.Context, file *os.File, dir string) (list []Found, locked bool, err error) {
	volumes, err := listVolumes(ctx, file)
	if err != nil {
		return nil, false, err
	}
	mounts, err := thread.OpenMounts(dir, func() (err error) {
		if err := os.Mkdir(filepath.Join(dir, tryDir), 0o700); err != nil {
			return err
		}
		d := newDisk()
		s := &stack{run: hosttool.Output, disk: d}
		defer func() { err = errors.Join(err, s.close(), d.close()) }()
		if err := s.unstack(ctx, volumes); err != nil {
			return err
		}
		locked = slices.ContainsFunc(s.volumes, volume.isEncrypted)
		found, _ := d.search(ctx, s.volumes, dir) // what cannot be mounted has none
		for _, c := range found {
			list = append(list, Found{c.ref(), cmp.Or(c.name, unnamed), c.volume.fsType, c.volume.size})
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, locked, err
	}
	return list, locked, mounts.Close()
}

// Name returns the name of the Linux whose root a directory is; ok says that it is one.
func Name(dir string) (name string, ok bool) {
	name, ok = linuxIn(dir)
	return cmp.Or(name, unnamed), ok
}

// unnamed is a Linux without os-release's name.
const unnamed = "a Linux without a name"
