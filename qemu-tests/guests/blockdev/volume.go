package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"viver.lan/internal/sleep"
)

// volumeSize is what the device holds: an image and then words of which each
// tells its place.
const volumeSize = 192 << 20

// volume is the truth about what every byte of the device is. Daemon and tests
// compute it each for themselves.
type volume struct {
	image []byte
}

func openVolume() (*volume, error) {
	image, err := os.ReadFile("/image.squashfs")
	if err != nil {
		return nil, err
	}
	if len(image) > volumeSize/2 {
		return nil, fmt.Errorf("/image.squashfs has %d bytes, at most %d expected", len(image), volumeSize/2)
	}
	image = append(image, make([]byte, -len(image)&4095)...)
	return &volume{image: image}, nil
}

// fill writes the volume's bytes from off on; both are multiples of 8.
func (v *volume) fill(p []byte, off int64) {
	if off < int64(len(v.image)) {
		n := copy(p, v.image[off:])
		p, off = p[n:], off+int64(n)
	}
	for ; len(p) >= 8; p, off = p[8:], off+8 {
		binary.LittleEndian.PutUint64(p, uint64(off)*0x9e3779b97f4a7c15)
	}
}

// check compares what was read at off with the truth.
func (v *volume) check(p []byte, off int64) error {
	want := make([]byte, len(p))
	v.fill(want, off)
	if !bytes.Equal(p, want) {
		return fmt.Errorf("wrong data in the %d bytes at %d", len(p), off)
	}
	return nil
}

// backend is the volume with faults.
type backend struct {
	*volume
	delay  atomic.Int64 // nanoseconds per read
	broken atomic.Bool  // reads fail

	now, most atomic.Int64 // reads at once
	total     atomic.Int64

	mu   sync.Mutex
	gate chan struct{} // closed: reads pass
}

func newBackend(v *volume) *backend {
	open := make(chan struct{})
	close(open)
	return &backend{volume: v, gate: open}
}

// Size implements nbd.Backend.
func (b *backend) Size() int64 { return volumeSize }

// ReadAt implements nbd.Backend.
func (b *backend) ReadAt(ctx context.Context, p []byte, off int64) error {
	b.total.Add(1)
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	if sleep.For(ctx, time.Duration(b.delay.Load())) != nil {
		return ctx.Err()
	}
	if b.broken.Load() {
		return errors.New("broken by order")
	}
	b.fill(p, off)
	return nil
}

// stall makes every read wait until resume.
func (b *backend) stall() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = make(chan struct{})
}

func (b *backend) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.gate:
	default:
		close(b.gate)
	}
}
