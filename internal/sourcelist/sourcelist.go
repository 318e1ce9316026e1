// Package sourcelist lists what on this machine an image could be made of: its own system,
// those on disks that are mounted, and those on disks that nothing uses.
//
// It asks lsblk what disks there are, and package diskroot what is on them; nothing
// is written, and a disk in use is not opened. Nor is one that can be plugged in, before a
// person has chosen it: what a stranger wrote to it would reach the file systems of the
// kernel. It chooses nothing. The invariant: what it lists, package imagesource reads by that name.
package sourcelist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"viver.lan/internal/bytesize"
	"viver.lan/internal/diskroot"
	"viver.lan/internal/hosttool"
)

// Place has an installed Linux.
type Place struct {
	// Source and Root are what `viver image build` and its --root take.
	Source, Root string
	// Name is that of the distribution, and On what the Linux lies on, both for people.
	Name, On string
	// Locked means that what is there is encrypted: nobody knows whether it has a Linux.
	Locked bool
	// Unseen means that it was not looked at, because anybody may have plugged it in: PlacesOn does.
	Unseen bool
}

// String names it to people.
func (p Place) String() string {
	if p.Unseen {
		return fmt.Sprintf("%s, %s: can be plugged in, so it was not looked at; choose it to look", p.Source, p.On)
	}
	if p.Locked {
		return fmt.Sprintf("%s, %s: encrypted, its passphrase is needed", p.Source, p.On)
	}
	source := p.Source
	if p.Root != "" {
		source += " --root " + p.Root
	}
	return fmt.Sprintf("%s: %s, on %s", source, p.Name, p.On)
}

// Stick is a removable disk, all of which can be overwritten.
type Stick struct {
	Path string
	On   string // for people
}

// device is a line of lsblk, with those that are made of it.
type device struct {
	Path     string
	Size     int64
	Type     string
	Model    string
	Vendor   string
	RM       bool
	RO       bool
	Hotplug  bool
	Tran     string
	FSType   string
	Points   []*string `json:"mountpoints"`
	Children []device
}

// parseDevices reads what lsblk says.
func parseDevices(out []byte) ([]device, error) {
	var all struct{ Blockdevices []device }
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("what lsblk says is no list of disks: %w", err)
	}
	return all.Blockdevices, nil
}

func devices(ctx context.Context) ([]device, error) {
	out, err := hosttool.Output(ctx, nil, "lsblk", "--json", "--bytes", "--tree", "--output", "PATH,SIZE,TYPE,MODEL,VENDOR,RM,RO,HOTPLUG,TRAN,FSTYPE,MOUNTPOINTS")
	if err != nil {
		return nil, fmt.Errorf("list the disks of this machine: %w", err)
	}
	return parseDevices(out)
}

// isForeign reports whether a disk is one that anybody may have brought. lsblk calls USB disks and memory
// cards hotplug, of which many do not say that they are removable.
func (d device) isForeign() bool { return d.RM || d.Hotplug || d.Tran == "usb" }

// Places lists the installed Linuxes of this machine, its own first. What cannot be looked at is said in
// notes. work is an empty directory of the caller's.
func Places(ctx context.Context, work string) (list []Place, notes []string, err error) {
	disks, err := devices(ctx)
	if err != nil {
		return nil, nil, err
	}
	l := &listing{ctx: ctx, probe: func(path string) ([]diskroot.Found, bool, error) { return probe(ctx, path, work) }}
	for _, d := range disks {
		if d.Type == "disk" && d.Size > 0 {
			l.disk(d)
		}
	}
	own := Place{Source: "/", On: "this machine, as it runs"}
	own.Name, _ = diskroot.Name("/")
	return append([]Place{own}, l.places...), l.notes, ctx.Err()
}

// PlacesOn lists what an unseen place has. work is as for Places.
func PlacesOn(ctx context.Context, p Place, work string) (list []Place, notes []string, err error) {
	l := &listing{ctx: ctx, probe: func(path string) ([]diskroot.Found, bool, error) { return probe(ctx, path, work) }}
	l.unused(p.Source, p.On)
	return l.places, l.notes, ctx.Err()
}

func probe(ctx context.Context, path, work string) ([]diskroot.Found, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	found, locked, err := diskroot.List(ctx, f, work)
	return found, locked, errors.Join(err, f.Close())
}

// listing collects what the disks have.
type listing struct {
	ctx    context.Context
	probe  func(path string) (found []diskroot.Found, locked bool, err error)
	places []Place
	notes  []string
}

func (l *listing) disk(d device) {
	on := fmt.Sprintf("a disk of %s", bytesize.Words(d.Size))
	if model := d.model(); model != "" {
		on = fmt.Sprintf("%s, a disk of %s", model, bytesize.Words(d.Size))
	}
	l.add(d, on, d.isForeign())
}

// add lists what a device has: all of it where nothing is mounted, and where something is, that and
// the parts that are not. What is foreign is only named.
func (l *listing) add(d device, on string, isForeign bool) {
	if l.ctx.Err() != nil {
		return
	}
	for _, point := range d.points() {
		if name, ok := diskroot.Name(point); ok && point != "/" {
			l.places = append(l.places, Place{Source: point, Name: name, On: d.Path + " of " + on})
		}
	}
	switch {
	case len(d.points()) > 0:
	case d.isUsed() || d.isMadeInto():
		for _, child := range d.Children {
			l.add(child, on, isForeign)
		}
	case d.FSType == "swap":
	case isForeign:
		l.places = append(l.places, Place{Source: d.Path, On: on, Unseen: true})
	default:
		l.unused(d.Path, on)
	}
}

func (l *listing) unused(device, on string) {
	found, locked, err := l.probe(device)
	if err != nil && l.ctx.Err() == nil {
		l.notes = append(l.notes, fmt.Sprintf("%s was not looked at: %v", device, err))
		return
	}
	for _, f := range found {
		p := Place{Source: device, Name: f.Name, On: fmt.Sprintf("%s of %s, %s", f.FSType, bytesize.Words(f.Size), on)}
		if len(found) > 1 {
			p.Root = f.Ref
		}
		l.places = append(l.places, p)
	}
	if locked && len(found) == 0 {
		l.places = append(l.places, Place{Source: device, On: on, Locked: true})
	}
}

// points are where the device is mounted; swap space is not.
func (d device) points() (list []string) {
	for _, p := range d.Points {
		if p != nil && strings.HasPrefix(*p, "/") {
			list = append(list, *p)
		}
	}
	return list
}

// isUsed reports whether the device, or something on it, is mounted or swapped to.
func (d device) isUsed() bool {
	for _, p := range d.Points {
		if p != nil {
			return true
		}
	}
	for _, child := range d.Children {
		if child.isUsed() {
			return true
		}
	}
	return false
}

// isMadeInto reports whether other than partitions are made of the device, such as volumes of LVM.
func (d device) isMadeInto() bool {
	for _, child := range d.Children {
		if child.Type != "part" || child.isMadeInto() {
			return true
		}
	}
	return false
}

func (d device) model() string {
	return strings.TrimSpace(strings.TrimSpace(d.Vendor) + " " + strings.TrimSpace(d.Model))
}

// Sticks lists the sticks in this machine that nothing uses.
func Sticks(ctx context.Context) ([]Stick, error) {
	disks, err := devices(ctx)
	return sticks(disks), err
}

func sticks(disks []device) (list []Stick) {
	for _, d := range disks {
		if d.Type != "disk" || d.Size <= 0 || d.RO || !d.RM || d.isUsed() || d.isMadeInto() {
			continue
		}
		on := strings.TrimSpace(d.model() + ", " + bytesize.Words(d.Size))
		var parts []string
		for _, child := range d.Children {
			parts = append(parts, strings.TrimSpace(child.FSType+" of "+bytesize.Words(child.Size)))
		}
		if len(parts) > 0 {
			on += ", with " + strings.Join(parts, ", ")
		}
		list = append(list, Stick{d.Path, strings.TrimPrefix(on, ", ")})
	}
	return list
}
