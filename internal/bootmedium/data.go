package bootmedium

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"viver.lan/internal/disks"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/media"
)

// RestOfStick, as the size of saved data, is what is left of the stick.
const RestOfStick = -1

const (
	mib = 1 << 20
	// leastData is the smallest file system for saved data, in bytes: with less a node
	// would soon have to do without.
	leastData = 256 * mib
	// tableRoom is left behind the data for the copy of the partition table.
	tableRoom = mib
	// linuxData is what a GPT calls a partition with a Linux file system.
	linuxData = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// dataPlan says what becomes of saved data on a stick.
type dataPlan struct {
	at, size int64 // of the partition; no size: there is none
	keep     bool  // it is there already, with somebody's data
	erase    bool  // what is there shall not be found again
}

// planData decides what becomes of saved data when a medium of so many bytes is written
// to a device of size bytes. Data that is there is kept, unless it is to be erased.
//
// New data lies at the end, so that a larger medium has room later; what takes all the
// rest of the stick leaves half as much as the medium needs now.
func planData(device io.ReaderAt, size, medium, want int64, erase bool) (dataPlan, error) {
	old, found := findData(device, size)
	if found && !erase {
		if old.Offset < medium {
			return dataPlan{}, fmt.Errorf("its saved data (%d MiB) begins after %d MiB, and the medium has %d: take another stick, or copy what you need from the partition %s and write with --erase-data",
				old.Size/mib, old.Offset/mib, medium/mib, media.DataLabel)
		}
		return dataPlan{at: old.Offset, size: old.Size, keep: true}, nil
	}
	p := dataPlan{erase: found}
	if want == 0 {
		return p, nil
	}
	end := (size - tableRoom) / mib * mib
	least := (medium + mib - 1) / mib * mib
	p.at, p.size = (end-want)/mib*mib, want/mib*mib
	if want == RestOfStick {
		p.at = least + medium/2/mib*mib
		if end-p.at < leastData {
			p.at = least
		}
		p.size = end - p.at
	}
	switch {
	case p.size < leastData && want != RestOfStick:
		return p, fmt.Errorf("--data: saved data needs %d MiB at least", leastData/mib)
	case p.at < least || p.size < leastData:
		return p, fmt.Errorf("beside the medium it has room for %d MiB of saved data, which needs %d at least: take a larger stick, or less --data", max(0, end-least)/mib, max(leastData, want)/mib)
	}
	return p, nil
}

// findData finds saved data on a stick. The beginning of the stick may be a half-written
// medium; then the copy of the partition table at its end still knows.
func findData(r io.ReaderAt, size int64) (media.Partition, bool) {
	now, _ := media.Partitions(r, size) // none is as good as an unreadable one
	before, _ := media.BackupPartitions(r, size)
	for _, p := range append(now, before...) {
		fs, err := disks.Probe(io.NewSectionReader(r, p.Offset, p.Size), p.Size)
		if err == nil && fs.Type == "ext4" && fs.Label == media.DataLabel {
			return p, true
		}
	}
	return media.Partition{}, false
}

// tools says what is missing on this machine for what is planned.
func (p dataPlan) tools() error {
	if p.size == 0 {
		return nil
	}
	for _, need := range []struct{ program, from string }{{"sfdisk", "fdisk"}, {"mkfs.ext4", "e2fsprogs"}} {
		if _, err := hosttool.Find(need.program); err != nil {
			return fmt.Errorf("saved data: %w: install %s", err, need.from)
		}
	}
	return nil
}

// forget clears the copy of the partition table, before anything is written: the data
// was to be erased, and must not come back when that is broken off.
func (p dataPlan) forget(out *os.File, size int64) error {
	if !p.erase {
		return nil
	}
	_, err := out.WriteAt(make([]byte, tableRoom), size-tableRoom)
	return err
}

// remember sees to it that the copy of the partition table at the end of the stick knows
// kept data, before its beginning is cleared. The copy does not where somebody copied the
// stick to a larger one, or made the table with another program.
func (p dataPlan) remember(ctx context.Context, out stick, size int64) error {
	copied, _ := media.BackupPartitions(out, size) // none is as good as an unreadable one
	if !p.keep || slices.ContainsFunc(copied, func(c media.Partition) bool { return c.Offset == p.at && c.Size == p.size }) {
		return nil
	}
	t, err := readTable(out, size)
	if err != nil {
		return err
	}
	t.begin = make([]byte, head)
	if err := t.edit(ctx, "label: gpt\n"+p.entry()); err != nil {
		return fmt.Errorf("its saved data would be lost if this were broken off: %w; copy what you need from the partition %s and write with --erase-data", err, media.DataLabel)
	}
	return t.writeEnd(out)
}

// write makes the file system, unless it is there, and then its entry in the partition
// table behind those of the medium, so that an entry always leads to data.
func (p dataPlan) write(ctx context.Context, target string, size int64) error {
	if p.size == 0 {
		return nil
	}
	err := p.makeFileSystem(ctx, target)
	if err == nil {
		err = p.finish(ctx, target, size)
	}
	if err != nil {
		return fmt.Errorf("saved data: %w; the medium is written, and boots without it", err)
	}
	return nil
}

func (p dataPlan) makeFileSystem(ctx context.Context, target string) (err error) {
	if p.keep {
		return nil
	}
	root, err := os.MkdirTemp("", "viver-data-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	if err := os.Mkdir(filepath.Join(root, disks.Marker), 0o755); err != nil {
		return err
	}
	return hosttool.Run(ctx, nil, "mkfs.ext4", "-q", "-F", "-L", media.DataLabel, "-m", "0", "-d", root,
		"-E", fmt.Sprintf("offset=%d,nodiscard,root_owner=0:0", p.at), target, fmt.Sprintf("%dk", p.size/1024))
}

func (p dataPlan) finish(ctx context.Context, target string, size int64) (err error) {
	out, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := p.addEntry(ctx, out, size); err != nil {
		return err
	}
	return p.check(out, size)
}

// addEntry writes the beginning before the end: until the medium's own table at the
// beginning knows kept data, only the copy at the end does.
func (p dataPlan) addEntry(ctx context.Context, out stick, size int64) error {
	t, err := readTable(out, size)
	if err != nil {
		return err
	}
	// The copy of the table is where the medium ends; it belongs to the end of the stick.
	if err := t.edit(ctx, "", "--relocate", "gpt-bak-std"); err != nil {
		return err
	}
	if err := t.edit(ctx, p.entry(), "--append"); err != nil {
		return err
	}
	if err := t.writeBegin(out); err != nil {
		return err
	}
	return t.writeEnd(out)
}

// entry is the partition as sfdisk reads it.
func (p dataPlan) entry() string {
	return fmt.Sprintf("start=%d, size=%d, type=%s, name=%s\n", p.at/512, p.size/512, linuxData, media.DataLabel)
}

// check looks for the data as the next medium will.
func (p dataPlan) check(out io.ReaderAt, size int64) error {
	if got, ok := findData(out, size); !ok || got.Offset != p.at || got.Size != p.size {
		return errors.New("the partition is not there after it was made: the device is worn out or not as large as it says")
	}
	return nil
}

// String says what becomes of the data, for people.
func (p dataPlan) String() string {
	switch {
	case p.size == 0:
		return ""
	case p.keep:
		return fmt.Sprintf("its saved data (%d MiB) is kept", p.size/mib)
	}
	return fmt.Sprintf("%d MiB for saved data", p.size/mib)
}
