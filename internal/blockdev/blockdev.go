// Package blockdev makes a volume a block device: it attaches a server's
// socketpairs to the kernel's NBD driver by generic netlink, replaces every
// connection that ends, and re-attaches when a daemon was killed and came
// back.
//
// It does not speak the NBD protocol (Config.Serve does, see package nbd) and
// holds no data. The invariant: while a Device runs, a connection that ends is
// replaced at once, and the driver waits for weeks before it gives up a device that
// has none. So a reader of the device waits and never gets EIO because a process or
// a connection ended.
//
// The driver: drivers/block/nbd.c and include/uapi/linux/nbd-netlink.h of the
// kernel. Load it with ModuleParameters.
package blockdev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"viver.lan/internal/sleep"
)

// ModuleParameters for nbd.ko: one device at start (others appear when they
// are attached) and no search for partitions, which would read from a volume
// that has none.
const ModuleParameters = "nbds_max=1 max_part=0"

// ErrLost is returned by Device.Run when another program disconnected the device.
// Reads of it fail from then on; if nothing holds it open, it can be attached again.
var ErrLost = errors.New("the kernel takes no more connections for it: another program disconnected it")

// Config describes a device to attach. Zero values mean the defaults.
type Config struct {
	// Index n of /dev/nbdN.
	Index int
	// Size of the volume in bytes: a multiple of 512, better of 4096.
	Size int64
	// Identity of the volume, such as its infohash. A device attached under
	// another identity is never taken over (kernels before 5.14 keep no
	// identity; there only the sizes are compared).
	Identity string
	// Connections served side by side. One is concurrent already; a second
	// carries the reads while a first is replaced. Default 2.
	Connections int
	// Timeout after which the kernel gives a connection up that left a read
	// unanswered and sends that read again, in whole seconds. Default 10 s.
	Timeout time.Duration
	// DeadTimeout is how long reads wait for a new connection when there is
	// none. Default 20 days (in milliseconds it fits 31 bits).
	DeadTimeout time.Duration
	// ReadAheadKB and MaxSectorsKB of the device's queue, in KiB. Default 16 and 512;
	// the driver's own is 128 for both. A file system reads ahead what the device does:
	// around each page of a program or library that is touched.
	ReadAheadKB, MaxSectorsKB int
	// Serve answers the reads that come over conn until it ends or ctx does,
	// and closes it. nbd.Serve bound to a backend.
	Serve func(ctx context.Context, conn net.Conn) error
	// Root is put before /sys and /dev. Empty on a real machine.
	Root string
	// Log receives what happens to connections. Default: nowhere.
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Index < 0 {
		return c, fmt.Errorf("index is %d, 0 or more expected", c.Index)
	}
	if c.Size <= 0 || c.Size%512 != 0 {
		return c, fmt.Errorf("size is %d bytes, a multiple of 512 expected: pad the volume", c.Size)
	}
	if c.Serve == nil {
		return c, errors.New("no server given")
	}
	if c.Connections <= 0 {
		c.Connections = 2
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.DeadTimeout <= 0 {
		c.DeadTimeout = 20 * 24 * time.Hour
	}
	if c.ReadAheadKB <= 0 {
		c.ReadAheadKB = 16
	}
	if c.MaxSectorsKB <= 0 {
		c.MaxSectorsKB = 512
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Device is a volume attached to the kernel.
type Device struct {
	config Config
	kernel driver
	again  bool
	conns  []net.Conn // one per connection; nil where Run has to get one

	detaching atomic.Bool
}

// Attach connects the volume to /dev/nbdN. When that device is connected
// already, by a daemon that died, Attach takes it over, waiting until ctx ends
// for the kernel to notice the death. Call Run at once: until then reads of
// the device wait.
func Attach(ctx context.Context, c Config) (*Device, error) {
	return attach(ctx, c, netlinkDriver{})
}

func attach(ctx context.Context, c Config, k driver) (*Device, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", name(c.Index), err)
	}
	d := &Device{config: c, kernel: k, conns: make([]net.Conn, c.Connections)}
	d.again, err = k.connected(c.Index)
	if err == nil && d.again {
		err = d.takeOver(ctx)
	} else if err == nil {
		err = d.connect()
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", name(c.Index), err)
	}
	return d, nil
}

// connect attaches a device that is free.
func (d *Device) connect() error {
	c := d.config
	var fds []int
	for i := range d.conns {
		p, err := newPair()
		if err != nil {
			d.close()
			return err
		}
		defer p.kernels.Close()
		d.conns[i] = p.ours
		fds = append(fds, p.fd())
	}
	err := d.kernel.connect(connectRequest{
		index:       c.Index,
		size:        c.Size,
		blockSize:   blockSize(c.Size),
		timeout:     c.Timeout,
		deadTimeout: c.DeadTimeout,
		identity:    c.Identity,
		sockets:     fds,
	})
	if err != nil {
		d.close()
	}
	return err
}

// close closes the connections that are not served yet.
func (d *Device) close() {
	for _, conn := range d.conns {
		if conn != nil {
			conn.Close()
		}
	}
	d.conns = nil
}

// takeOver gives a device that is connected already its first new connection.
// Run gets the others.
func (d *Device) takeOver(ctx context.Context) error {
	if err := sameVolume(d.config); err != nil {
		return err
	}
	conn, err := d.replace(ctx)
	if err != nil {
		return err
	}
	d.conns[0] = conn
	return nil
}

// Path of the block device.
func (d *Device) Path() string { return "/dev/" + name(d.config.Index) }

// Again reports whether Attach took over a device that was connected already.
func (d *Device) Again() bool { return d.again }

// Detach disconnects the device and waits until the kernel has released it, which it
// does only when nothing holds it open. Reads that still wait fail. Run
// returns nil.
func (d *Device) Detach(ctx context.Context) error {
	d.detaching.Store(true)
	return disconnect(ctx, d.kernel, d.config.Index)
}

// Disconnect is Detach for a program that is not the device's server, such as
// the last one of a shutdown.
func Disconnect(ctx context.Context, index int) error {
	return disconnect(ctx, netlinkDriver{}, index)
}

func disconnect(ctx context.Context, k driver, index int) error {
	if err := k.disconnect(index); err != nil {
		return fmt.Errorf("detach %s: %w", name(index), err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		switch connected, err := k.connected(index); {
		case err != nil:
			return fmt.Errorf("detach %s: %w", name(index), err)
		case !connected:
			return nil
		}
		if err := sleep.For(ctx, wait); err != nil {
			return fmt.Errorf("detach %s: disconnected, but something still holds it open: %w", name(index), err)
		}
	}
}

// Connected reports whether the kernel has a connection, alive or dead, for
// the device of that index.
func Connected(index int) (bool, error) {
	return netlinkDriver{}.connected(index)
}

// name of the device of an index.
func name(index int) string { return fmt.Sprintf("nbd%d", index) }
