package lan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Endpoint is test code on the network: it sends any frame and receives what a
// machine on its port would. One goroutine may receive while another sends.
type Endpoint struct {
	// Port is the endpoint's place in the switch.
	Port *Port

	conn   net.Conn
	frames *reader
}

// Attach plugs an endpoint into the switch.
func (s *Switch) Attach(name string) (*Endpoint, error) {
	ours, theirs := net.Pipe()
	port, err := s.Plug(name, theirs, PortOptions{})
	if err != nil {
		ours.Close()
		return nil, err
	}
	return &Endpoint{Port: port, conn: ours, frames: newReader(ours)}, nil
}

// Send puts a frame on the wire, from the destination address to the last byte
// of the payload, without checksum.
func (e *Endpoint) Send(frame []byte) error {
	if len(frame) < minFrame || len(frame) > MaxFrame {
		return fmt.Errorf("send from %s: a frame has %d to %d bytes, this one %d", e.Port.Name, minFrame, MaxFrame, len(frame))
	}
	framed := binary.BigEndian.AppendUint32(make([]byte, 0, headerSize+len(frame)), uint32(len(frame)))
	if _, err := e.conn.Write(append(framed, frame...)); err != nil {
		return fmt.Errorf("send from %s: %w", e.Port.Name, ErrClosed)
	}
	return nil
}

// Receive returns the next frame, valid until the next call. It waits until
// ctx ends.
func (e *Endpoint) Receive(ctx context.Context) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { _ = e.conn.SetReadDeadline(time.Unix(1, 0)) })()
	for ctx.Err() == nil {
		framed, err := e.frames.next()
		if err == nil {
			return framed[headerSize:], nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("receive on %s: %w", e.Port.Name, ErrClosed)
		}
		// Either ctx ended or this is left over from a call before.
		if err := e.conn.SetReadDeadline(time.Time{}); err != nil {
			return nil, fmt.Errorf("receive on %s: %w", e.Port.Name, ErrClosed)
		}
	}
	return nil, fmt.Errorf("receive on %s: %w", e.Port.Name, context.Cause(ctx))
}

// Close unplugs the endpoint.
func (e *Endpoint) Close() error {
	e.Port.Close()
	return e.conn.Close()
}
