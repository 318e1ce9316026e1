package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"viver.lan/internal/contain"
	"viver.lan/internal/sleep"
)

// Bounds of a listening server.
const (
	handshakeTimeout = 10 * time.Second
	writeTimeout     = 30 * time.Second
	// clientBytes is the default of Options.MaxBytes for each client,
	// and largeBytes what all reads that are longer may use together.
	clientBytes = 4 << 20
	largeBytes  = 2 * MaxRequestLength
)

// Listen serves exports to every client that connects to l, until ctx ends
// (nil) or l fails. It closes l and every connection and waits for them.
// Options.WriteTimeout defaults to 30 s here: a client that stops reading
// does not keep its connection for ever. Connections, and what they use, are bounded
// per address and in all: see places.
func Listen(ctx context.Context, l net.Listener, exports []Export, o Options) error {
	if len(exports) == 0 {
		l.Close()
		return errors.New("serve nbd: nothing to export")
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = clientBytes
	}
	o.large = semaphore.NewWeighted(largeBytes)
	o = o.withDefaults()
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = writeTimeout
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()

	var clients errgroup.Group
	defer clients.Wait()
	defer cancel() // before the wait: a broken listener ends its clients too
	places, refusals := newPlaces(), &rate.Sometimes{First: 20, Interval: 10 * time.Second}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			o.Log.Warn("cannot accept another nbd client", "error", err)
			_ = sleep.For(ctx, 100*time.Millisecond) // until somebody closes a file
			continue
		}
		if err != nil {
			return fmt.Errorf("serve nbd on %s: %w", l.Addr(), err)
		}
		p := places.enter(ctx, conn)
		if p == nil {
			conn.Close()
			continue
		}
		clients.Go(func() error {
			defer places.leave(p)
			serveClient(ctx, conn, exports, o, refusals, func() { places.greeted(p) })
			return nil
		})
	}
}

// serveClient serves one client from handshake to disconnect. greeted is called after
// the handshake.
func serveClient(ctx context.Context, conn net.Conn, exports []Export, o Options, refusals *rate.Sometimes, greeted func()) {
	log := o.Log.With("client", conn.RemoteAddr().String())
	defer contain.Recover(log, "nbd client", nil)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	export, structured, err := Handshake(conn, exports)
	if err != nil {
		if !errors.Is(err, ErrAborted) && !errors.Is(err, net.ErrClosed) {
			refusals.Do(func() { log.Warn("nbd client refused", "error", err) })
		}
		return
	}
	greeted()
	conn.SetDeadline(time.Time{})
	o.Log, o.Structured = log, structured
	err = Serve(ctx, conn, export.Backend, o)
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		log.Warn("nbd connection failed", "error", err)
	}
}
