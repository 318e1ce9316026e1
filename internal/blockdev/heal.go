package blockdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"viver.lan/internal/sleep"
)

// Pauses between attempts to replace a connection, and between a connection
// that ended soon after it began and its successor.
const (
	shortestPause = time.Millisecond
	longestPause  = time.Second
	soon          = 5 * time.Second
)

// Run serves the device's connections and replaces each that ends, until ctx
// ends (its cause), Detach was called (nil) or the device is lost (ErrLost).
// When ctx ends the device stays connected without connections, to be taken
// over by the next Attach.
func (d *Device) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for slot, conn := range d.conns {
		group.Go(func() error { return d.serveSlot(ctx, slot, conn) })
	}
	d.conns = nil
	if !d.again {
		// Newer kernels take a setting only when no read is in flight, and only
		// we answer those: so beside the serving, and not at all after a
		// take-over, when reads wait and the settings are those of before. Not
		// waited for either: should ctx end first, only the next daemon's
		// answers let it go on.
		go d.tune()
	}
	if err := group.Wait(); err != nil && !d.detaching.Load() {
		return fmt.Errorf("keep %s: %w", name(d.config.Index), err)
	}
	return nil
}

// serveSlot serves one connection after another.
func (d *Device) serveSlot(ctx context.Context, slot int, conn net.Conn) error {
	log := d.config.Log.With("device", d.Path(), "connection", slot)
	pause := shortestPause
	for {
		if conn != nil {
			began := time.Now()
			err := d.config.Serve(ctx, conn)
			conn.Close()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if d.detaching.Load() {
				return nil
			}
			log.Warn("block device connection ended, replacing it", "after", time.Since(began).Round(time.Millisecond), "error", err)
			if time.Since(began) > soon {
				pause = shortestPause
			} else if err := sleep.For(ctx, pause); err != nil {
				return err
			} else {
				pause = min(2*pause, longestPause)
			}
		}
		var err error
		if conn, err = d.replace(ctx); err != nil {
			if d.detaching.Load() {
				return nil
			}
			return err
		}
		log.Info("block device connection replaced")
	}
}

// replace offers the kernel new connections until it takes one. It takes one
// when one of its own is dead, which it may notice a little after us.
func (d *Device) replace(ctx context.Context) (net.Conn, error) {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		conn, err := d.offer()
		switch {
		case errors.Is(err, unix.EINVAL): // not configured any more, or with another identity
			return nil, fmt.Errorf("%w (%w)", ErrLost, err)
		case err != nil:
			d.config.Log.Warn("block device connection not replaced yet", "device", d.Path(), "error", err)
		case conn != nil:
			return conn, nil
		}
		if err := sleep.For(ctx, pause); err != nil {
			return nil, fmt.Errorf("all its connections are still in use: is another block daemon alive? (%w)", err)
		}
	}
}

// offer gives the kernel one new connection and returns our end of it, or nil
// when the kernel did not need it.
func (d *Device) offer() (net.Conn, error) {
	p, err := newPair()
	if err != nil {
		return nil, err
	}
	err = d.kernel.reconfigure(reconfigureRequest{
		index:    d.config.Index,
		identity: d.config.Identity,
		sockets:  []int{p.fd()},
	})
	p.kernels.Close()
	taken := false
	if err == nil {
		taken, err = p.taken()
	}
	if !taken {
		p.ours.Close()
		return nil, err
	}
	return p.ours, nil
}
