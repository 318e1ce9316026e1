package disks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
)

// Medium is a boot medium, mounted.
type Medium struct {
	Device Device
	// ID is the medium's own name, made when it was built.
	ID string
	// Image is the infohash of the image on it.
	Image manifest.Infohash
	// Dir is where it is mounted, read-only.
	Dir string
	// Note is a sentence when more than one medium was found.
	Note string
}

// pollEvery is the time between two searches for a medium: a USB disk appears
// seconds after the kernel starts.
const pollEvery = 250 * time.Millisecond

// FindMedium waits until a boot medium is there and mounts it read-only at dir.
// want is the id from the kernel command line; empty accepts any medium. The
// error, when ctx ends first, says what was found instead.
func FindMedium(ctx context.Context, m OS, want, dir string) (*Medium, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("find the medium: %w", err)
	}
	f := &finder{os: m, want: want, dir: dir, prober: prober{os: m}, ruledOut: make(map[string]int64), others: make(map[string]string)}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		medium, err := f.pass(ctx)
		if medium != nil || err != nil {
			return medium, err
		}
		select {
		case <-ctx.Done():
			return nil, f.failure(ctx.Err())
		case <-tick.C:
		}
	}
}

type finder struct {
	os     OS
	want   string
	dir    string
	prober prober
	// ruledOut are devices that cannot be a medium, with their size: another disk
	// behind the same name is most likely of another size.
	ruledOut map[string]int64
	seen     []string // devices that the last pass saw
	// others has for each device why the medium in it is not used. For a drive that
	// does not answer in time the earlier reason stays.
	others map[string]string
}

// pass checks all devices once.
func (f *finder) pass(ctx context.Context) (*Medium, error) {
	all, err := List(f.os)
	if err != nil {
		return nil, err
	}
	f.seen = nil
	var devices []Device
	for _, d := range all {
		f.seen = append(f.seen, d.Name)
		if d.Optical || f.ruledOut[d.Name] != d.Size {
			devices = append(devices, d)
		}
	}
	maps.DeleteFunc(f.others, func(name, _ string) bool { return !slices.Contains(f.seen, name) })
	// A drive that takes longer to load its disc is asked again at the next
	// pass; meanwhile others may have what we want.
	probing, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var fit []*Medium
	var taken []string // disks
	for i, a := range f.prober.probe(probing, devices) {
		d := devices[i]
		switch {
		case a.err != nil || slices.Contains(taken, d.Disk):
			// An image on a USB disk may be seen on the whole disk and on a
			// partition; the disk, whose name comes first, will do.
			continue
		case a.fs.Type != "iso9660" || a.fs.Label != media.Label:
			f.ruledOut[d.Name] = d.Size
			delete(f.others, d.Name)
			continue
		}
		medium, err := f.inspect(d)
		switch {
		case err != nil:
			f.others[d.Name] = fmt.Sprintf("the medium in %s is not used: %v", d.Name, err)
		case f.want != "" && medium.ID != f.want:
			f.others[d.Name] = fmt.Sprintf("the medium in %s is not used: its id is %s", d.Name, medium.ID)
		default:
			delete(f.others, d.Name)
			taken = append(taken, d.Disk)
			fit = append(fit, medium)
		}
	}
	if len(fit) == 0 {
		return nil, nil
	}
	best := fit[0]
	if err := f.mount(best.Device); err != nil {
		return nil, err
	}
	best.Note = strings.Join(f.notes(), "; ")
	if len(fit) > 1 {
		var names []string
		for _, one := range fit {
			names = append(names, one.Device.Name+" ("+one.ID+")")
		}
		best.Note = strings.Join(append(f.notes(), fmt.Sprintf("the media in %s all fit: %s is used, the first by name",
			strings.Join(names, ", "), best.Device.Name)), "; ")
	}
	return best, nil
}

// notes are the sentences about media that are not ours, by device name.
func (f *finder) notes() []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(f.others)) {
		list = append(list, f.others[name])
	}
	return list
}

func (f *finder) mount(d Device) error {
	return f.os.Mount(f.os.Path(d.Path), f.dir, "iso9660", inspectFlags, "")
}

// inspect reads the marker file of one candidate and unmounts it again.
func (f *finder) inspect(d Device) (_ *Medium, err error) {
	if err := f.mount(d); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.os.Unmount(f.dir, 0)) }()
	file, err := os.Open(filepath.Join(f.dir, media.MarkerPath))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	id, err := media.ReadMarker(file)
	if err != nil {
		return nil, err
	}
	return &Medium{Device: d, ID: id.ID, Image: id.Image, Dir: f.dir}, nil
}

func (f *finder) failure(err error) error {
	what := "a medium labelled " + media.Label
	if f.want != "" {
		what += " with id " + f.want
	}
	found := "no disk or drive at all"
	if len(f.seen) > 0 {
		found = strings.Join(append([]string{"only " + strings.Join(f.seen, ", ")}, f.notes()...), "; ")
	}
	return fmt.Errorf("find the medium: wanted %s, found %s: %w", what, found, err)
}
