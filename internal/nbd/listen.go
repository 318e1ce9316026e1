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

	"viver.lan/internal/contain"
)

// Bounds of a listening server.
const (
	maxConnections   = 64 // more wait in the listener's backlog
	handshakeTimeout = 10 * time.Second
	writeTimeout     = 30 * time.Second
)

// Listen serves exports to every client that connects to l, until ctx ends
// (nil) or l fails. It closes l and every connection and waits for them.
// Options.WriteTimeout defaults to 30 s here: a client that stops reading
// does not keep a place for ever.
func Listen(ctx context.Context, l net.Listener, exports []Export, o Options) error {
	if len(exports) == 0 {
		l.Close()
		return errors.New("serve nbd: nothing to export")
	}
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
	clients.SetLimit(maxConnections)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			o.Log.Warn("no room for another nbd client", "err", err)
			select { // until somebody closes a file
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("serve nbd on %s: %w", l.Addr(), err)
		}
		clients.Go(func() error {
			serveClient(ctx, conn, exports, o)
			return nil
		})
	}
}

// serveClient leads one client from handshake to good-bye.
func serveClient(ctx context.Context, conn net.Conn, exports []Export, o Options) {
	log := o.Log.With("client", conn.RemoteAddr().String())
	defer contain.Recover(log, "nbd client", nil)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	export, structured, err := Handshake(conn, exports)
	if err != nil {
		if !errors.Is(err, ErrAborted) {
			log.Warn("nbd client turned away", "err", err)
		}
		return
	}
	conn.SetDeadline(time.Time{})
	o.Log, o.Structured = log, structured
	err = Serve(ctx, conn, export.Backend, o)
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		log.Warn("nbd client lost", "err", err)
	}
}
