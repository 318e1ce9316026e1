package disks

import (
	"context"
	"errors"
	"os"
)

// prober reads superblocks side by side: a disk that spins up or dies must not
// make the others wait. Its zero value, with os set, is ready to use.
type prober struct {
	os      OS
	pending map[string]chan answer // devices that have not answered yet
}

type answer struct {
	fs  Superblock
	err error
}

var errSilent = errors.New("it does not answer")

// probe returns one answer per device, errSilent for those that gave none before
// ctx ended. A later call waits for the same read again: the kernel cannot cancel
// one.
func (p *prober) probe(ctx context.Context, devices []Device) []answer {
	if p.pending == nil {
		p.pending = make(map[string]chan answer)
	}
	for _, d := range devices {
		if p.pending[d.Name] != nil {
			continue
		}
		// There is room in the channel, so that an answer that nobody wants
		// any more keeps no goroutine.
		ch := make(chan answer, 1)
		p.pending[d.Name] = ch
		go func() {
			fs, err := probeFile(p.os, d)
			ch <- answer{fs, err}
		}()
	}
	answers := make([]answer, len(devices))
	for i, d := range devices {
		select {
		case answers[i] = <-p.pending[d.Name]:
			delete(p.pending, d.Name)
			continue
		case <-ctx.Done():
		}
		select {
		case answers[i] = <-p.pending[d.Name]: // in time, after all
			delete(p.pending, d.Name)
		default:
			answers[i].err = errSilent
		}
	}
	return answers
}

// probeFile probes the device file of d.
func probeFile(m OS, d Device) (Superblock, error) {
	f, err := os.Open(m.Path(d.Path))
	if err != nil {
		return Superblock{}, err
	}
	defer f.Close()
	return Probe(f, d.Size)
}
