package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/handover"
)

const (
	// mostAhead bounds what is read of a medium before anybody asks, in bytes: what a
	// stick gives while the network is looked for. A small machine reads a part of its
	// memory: one of memoryPerAhead.
	mostAhead, memoryPerAhead = 24 << 20, 32
	// tables is where a squashfs has its tables of files: at its end.
	tables = 4 << 20
	// aheadStep is what is asked of the kernel at a time.
	aheadStep = 2 << 20
	// aheadTime is what the search for DHCP servers takes; later, reads that somebody
	// waits for should find the medium idle.
	aheadTime = 6 * time.Second
)

// readAhead has the kernel read the ends of a file, where the block daemon finds them: a
// squashfs has its tables at the end, and the files that a boot needs in front if its
// image was built with a profile.
func readAhead(ctx context.Context, name string, memory int64) error {
	ctx, cancel := context.WithTimeout(ctx, aheadTime)
	defer cancel()
	return willNeed(ctx, name, aheadStep, func(size int64) []int64 { return aheadSteps(size, min(mostAhead, memory/memoryPerAhead)) })
}

// initStep is what is asked of the kernel at a time: the handover waits for no more.
const initStep = 256 << 10

// readInit has the kernel read what the init is made of, in the order in which it will:
// from a root that is compressed and comes over a network, that takes longer than from a
// disk, and there is a while until the handover.
func readInit(ctx context.Context, root, argument string) error {
	init, err := handover.FindInit(root, argument)
	if err != nil {
		return nil // the handover says so
	}
	for name := range handover.Parts(root, init) {
		if err := willNeed(ctx, name, initStep, wholeSteps); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// willNeed has the kernel read parts of a file into its page cache, until ctx ends, which
// is no error: steps of so many bytes, at the offsets that are chosen for the file's size.
func willNeed(ctx context.Context, name string, step int64, choose func(size int64) []int64) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	for _, offset := range choose(info.Size()) {
		if ctx.Err() != nil {
			return nil
		}
		if err := unix.Fadvise(int(f.Fd()), offset, step, unix.FADV_WILLNEED); err != nil {
			return fmt.Errorf("read ahead of %s: %w", name, err)
		}
	}
	return nil
}

// wholeSteps returns the offsets of all steps of a file that are initStep long.
func wholeSteps(size int64) (offsets []int64) {
	for at := int64(0); at < size; at += initStep {
		offsets = append(offsets, at)
	}
	return offsets
}

// aheadSteps returns the offsets of the steps to read of a file: its end first, then its
// front, up to the budget.
func aheadSteps(size, budget int64) (offsets []int64) {
	last := size / aheadStep * aheadStep
	end := max(0, min(last, (size-tables)/aheadStep*aheadStep))
	for at := end; at <= last && budget > 0 && at < size; at += aheadStep {
		offsets = append(offsets, at)
		budget -= aheadStep
	}
	for at := int64(0); at < end && budget > 0; at += aheadStep {
		offsets = append(offsets, at)
		budget -= aheadStep
	}
	return offsets
}
