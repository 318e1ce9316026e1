// Package nbd serves a read-only volume over the Network Block Device
// protocol: to the kernel over socketpairs (transmission phase only, see
// package blockdev) and to nbdcopy, qemu and others over TCP or unix sockets
// (with the fixed newstyle handshake).
//
// It is not a block store and not a client, and it decides nothing about where
// bytes come from: that, and waiting out a network fault, is the Backend's
// business. The invariant: whatever a peer sends, no more than
// Options.MaxRequests requests and Options.MaxBytes bytes of buffers are in
// flight per connection, and a request is answered exactly once or its
// connection ends.
//
// The protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
package nbd

import (
	"context"
	"log/slog"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sync/semaphore"
)

// A Backend is the volume behind an export.
type Backend interface {
	// ReadAt fills p with the volume's bytes from off on. It is called
	// concurrently and only with a range inside [0, Size()). It returns soon
	// after ctx ends. An error while ctx lives reaches the reader as EIO, so a
	// backend that merely has to wait waits instead.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Size of the volume in bytes. It never changes.
	Size() int64
}

// Transmission flags, as sent at the end of a handshake and as the kernel
// takes them for NBD_ATTR_SERVER_FLAGS.
const (
	FlagHasFlags     = protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	FlagReadOnly     = uint16(1 << 1)
	FlagSendFlush    = uint16(1 << 2)
	FlagCanMultiConn = protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
)

// MaxRequestLength is the longest read answered, in bytes: the protocol's
// default for servers that announce no other limit.
const MaxRequestLength = 32 << 20

// Options bound one connection. The zero value means the defaults.
type Options struct {
	// MaxRequests accepted and not yet answered; beyond it the connection is
	// not read. Default 256: the kernel sends at most 128 per connection, so
	// its sender never blocks.
	MaxRequests int
	// MaxBytes of read buffers in use. Requests beyond it wait in order; one
	// that is longer goes alone. Default 16 MiB.
	MaxBytes int64
	// SlowAfter is the age at which an unanswered request is logged. Default 5 s.
	SlowAfter time.Duration
	// DrainTimeout bounds the wait for the last answers after a client
	// disconnected. Default 5 s.
	DrainTimeout time.Duration
	// Structured says that the client negotiated structured replies.
	Structured bool
	// WriteTimeout ends a connection whose peer does not take an answer in
	// time. 0 means never, which suits the kernel.
	WriteTimeout time.Duration
	// Here, when set, is asked before the backend, when no other request waits: it fills p
	// with the volume's bytes from off on, or reports false when it would have to wait for
	// them. A goroutine for each read costs more than such a read does. It is for a client
	// that takes answers while it sends requests, as the kernel does.
	Here func(p []byte, off int64) bool
	// Observe, when set, is called for each read answered, with its length in bytes
	// and the time from its arrival to its answer.
	Observe func(length int, took time.Duration)
	large   *semaphore.Weighted // shared by clients: bytes of reads beyond MaxBytes
	// Log receives slow requests and backend errors. Default: nowhere.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.MaxRequests <= 0 {
		o.MaxRequests = 256
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 16 << 20
	}
	if o.SlowAfter <= 0 {
		o.SlowAfter = 5 * time.Second
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
