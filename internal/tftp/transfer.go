package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
)

// Conn is a transfer's own port, a *net.UDPConn.
type Conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// Aborted is the error of a transfer that its client has ended.
type Aborted struct {
	// Reason is what the client says.
	Reason *Error
	// Started tells whether it had confirmed anything. Firmware asks for a file's
	// size and aborts, before it asks for the file.
	Started bool
}

// Error says with which words the client has ended the transfer.
func (e *Aborted) Error() string {
	return fmt.Sprintf("ended by the client: code %d, %q", e.Reason.Code, e.Reason.Text)
}

// errSilence ends a wait in which nothing came.
var errSilence = errors.New("no answer")

// Transfer is one request and what is sent to answer it. It belongs to one
// goroutine.
type Transfer struct {
	request request
	from    netip.AddrPort
	limits  *Limits
	conn    Conn
	heard   func() // called when the client has confirmed something
	started bool
	failed  error // why a packet could not be sent
}

// Name is the file that the client asks for, in its own words.
func (t *Transfer) Name() string { return t.request.name }

// From is the client's address and port.
func (t *Transfer) From() netip.AddrPort { return t.from }

// Send sends a file of so many bytes, or of an unknown number if that is less
// than zero, until ctx ends. It returns how many bytes the client has confirmed. An
// error is r's, ctx's, an *Aborted, or tells that no answer came or that r has another
// number of bytes.
func (t *Transfer) Send(ctx context.Context, r io.Reader, size int64) (int64, error) {
	if t.request.mode == "netascii" {
		r, size = newNetascii(r), -1
	}
	terms := t.limits.negotiate(t.request.options, size)
	wake := context.AfterFunc(ctx, func() { _ = t.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer wake()
	if len(terms.agreed) > 0 {
		if err := t.offer(ctx, terms); err != nil {
			return 0, err
		}
	}
	f := newFlight(r, size, terms)
	err := t.fly(ctx, f)
	return f.confirmed(), err
}

// offer sends the terms until the client confirms them. Nothing else goes out
// before: who asked may not be who is named as the sender.
func (t *Transfer) offer(ctx context.Context, terms terms) error {
	packet := optionAck(terms.agreed)
	for silent := range t.limits.Retries + 1 {
		t.write(packet)
		for deadline := time.Now().Add(terms.wait(silent)); ; {
			number, err := t.await(ctx, deadline)
			if err == errSilence {
				break
			}
			if err != nil || number == 0 {
				return err
			}
		}
	}
	return t.noAnswer()
}

// fly sends the blocks of a file until the client has confirmed the last one.
func (t *Transfer) fly(ctx context.Context, f *flight) error {
	for silent := 0; silent <= t.limits.Retries; silent++ {
		err := f.launch(t.write)
		for deadline := time.Now().Add(f.terms.wait(silent)); err == nil && !f.done(); {
			var number uint16
			if number, err = t.await(ctx, deadline); err != nil {
				break
			}
			if f.confirm(number) {
				silent = 0
			}
			if _, due := f.due(); due {
				err = f.launch(t.write)
				deadline = time.Now().Add(f.terms.wait(silent))
			}
		}
		if err != errSilence {
			return err
		}
		f.expire()
	}
	return t.noAnswer()
}

// write sends a packet. One that cannot be sent is as good as lost: the link may
// be back before the time-out.
func (t *Transfer) write(packet []byte) {
	if _, err := t.conn.WriteToUDPAddrPort(packet, t.from); err != nil {
		t.failed = err
	}
}

// await returns the next number that the client confirms. What others send, or
// nobody can decode, is ignored.
func (t *Transfer) await(ctx context.Context, deadline time.Time) (uint16, error) {
	buf := make([]byte, maxPacket)
	for {
		if err := t.conn.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
		if ctx.Err() != nil { // asked after the deadline is set, which then wakes us
			return 0, ctx.Err()
		}
		n, from, err := t.conn.ReadFromUDPAddrPort(buf)
		if err != nil && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, errSilence
		}
		if err != nil {
			return 0, err
		}
		if unmapped(from) != t.from {
			continue
		}
		r, err := parseReply(buf[:n])
		if err != nil {
			continue
		}
		if r.fault != nil {
			return 0, &Aborted{r.fault, t.started}
		}
		if !t.started {
			t.started = true
			t.heard()
		}
		return r.block, nil
	}
}

func (t *Transfer) noAnswer() error {
	return errors.Join(fmt.Errorf("no answer after %d tries", t.limits.Retries+1), t.failed)
}

// unmapped returns an address as a socket of either family would.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
