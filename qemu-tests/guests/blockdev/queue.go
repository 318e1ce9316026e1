package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shipped is what the block device sets its queue to.
var shipped = queueLimits{ahead: 16, most: 512}

// queueLimits of the block device, in KiB.
type queueLimits struct{ ahead, most int }

func (q queueLimits) set() error {
	const queue = "/sys/block/nbd0/queue/"
	return errors.Join(os.WriteFile(queue+"read_ahead_kb", fmt.Append(nil, q.ahead), 0),
		os.WriteFile(queue+"max_sectors_kb", fmt.Append(nil, q.most), 0))
}

// cost of reading something with the page cache empty.
type cost struct {
	took  time.Duration
	reads int64 // that reached the backend
}

func (c cost) String() string { return fmt.Sprintf("%.2f s, %d reads", c.took.Seconds(), c.reads) }

// queue: what limits of the queue cost a reader of the device, one of the files in the
// image and a program that touches one page of a file, when each read of the backend takes
// 10 ms, as that of a piece on another machine does. The limits that are shipped must cost
// the reader of files no more reads than the kernel's own, and bring the program nothing
// that it has not asked for.
func (b *bench) queue() (string, error) {
	if _, err := b.daemon.order("delay 10ms"); err != nil {
		return "", err
	}
	kernels, more := queueLimits{ahead: 128, most: 128}, queueLimits{ahead: 512, most: 512}
	files, page := make(map[queueLimits]cost), make(map[queueLimits]cost)
	var rows []string
	for _, q := range []queueLimits{kernels, shipped, more, {ahead: 2048, most: 512}} {
		var errFiles, errPage error
		if err := q.set(); err != nil {
			return "", err
		}
		device, err := b.measure(readDevice)
		files[q], errFiles = b.measure(func() error { _, err := treeDigest("/lower"); return err })
		page[q], errPage = b.measure(touchPage)
		if err := errors.Join(err, errFiles, errPage); err != nil {
			return "", err
		}
		rows = append(rows, fmt.Sprintf("read_ahead_kb %d, max_sectors_kb %d: 32 MiB of the device %v, all files %v, a page %v", q.ahead, q.most, device, files[q], page[q]))
	}
	_, err := b.daemon.order("delay 0s")
	err = errors.Join(err, shipped.set())
	if files[shipped].reads > files[kernels].reads || page[shipped].reads >= page[more].reads {
		err = errors.Join(err, errors.New("the shipped limits cost too many reads"))
	}
	return strings.Join(rows, "; "), err
}

// touchPage reads a byte in the middle of this program, as it is in the image, through a
// mapping: as programs and libraries are read.
func touchPage() error {
	f, err := os.Open("/lower/init")
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", f.Name(), err)
	}
	const block = 128 << 10 // of the squashfs
	_, err = io.Discard.Write([]byte{mapped[len(mapped)/2/block*block+block/2]})
	return errors.Join(err, unix.Munmap(mapped))
}

func readDevice() error {
	f, err := os.Open("/dev/nbd0")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(io.Discard, f, 32<<20)
	return err
}

// measure runs read with nothing in the page cache.
func (b *bench) measure(read func() error) (cost, error) {
	if err := dropCaches(); err != nil {
		return cost{}, err
	}
	before, err := b.daemon.order("stats")
	if err != nil {
		return cost{}, err
	}
	began := time.Now()
	if err := read(); err != nil {
		return cost{}, err
	}
	took := time.Since(began)
	after, err := b.daemon.order("stats")
	return cost{took, after.Total - before.Total}, err
}
