package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// shipped is what the block device sets its queue to.
var shipped = queueLimits{ahead: 512, most: 512}

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

// queue: what limits of the queue cost a reader of the device and a reader of
// the files in the image, when each read of the backend takes 10 ms, as that
// of a piece on another machine does. The limits that are shipped must spare
// the device's reader most of the reads that the kernel's own would make, and
// cost the reader of files none.
func (b *bench) queue() (string, error) {
	if _, err := b.daemon.order("delay 10ms"); err != nil {
		return "", err
	}
	kernels := queueLimits{ahead: 128, most: 128}
	device, files := make(map[queueLimits]cost), make(map[queueLimits]cost)
	var rows []string
	for _, q := range []queueLimits{kernels, {ahead: 128, most: 512}, shipped, {ahead: 2048, most: 512}} {
		var err, errFiles error
		if err := q.set(); err != nil {
			return "", err
		}
		device[q], err = b.measure(readDevice)
		files[q], errFiles = b.measure(func() error { _, err := treeDigest("/lower"); return err })
		if err := errors.Join(err, errFiles); err != nil {
			return "", err
		}
		rows = append(rows, fmt.Sprintf("read_ahead_kb %d, max_sectors_kb %d: 32 MiB of the device %v, all files %v", q.ahead, q.most, device[q], files[q]))
	}
	_, err := b.daemon.order("delay 0s")
	err = errors.Join(err, shipped.set())
	if device[shipped].reads*2 > device[kernels].reads || files[shipped].reads > files[kernels].reads {
		err = errors.Join(err, errors.New("the shipped limits cost too many reads"))
	}
	return strings.Join(rows, "; "), err
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
