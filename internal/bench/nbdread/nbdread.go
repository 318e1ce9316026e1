// Package nbdread reads NBD exports from start to end as a kernel would, and
// compares what comes with what should.
//
// It reads only, by the shortest of handshakes; package nbd is the server. The
// invariant: a byte is counted after it was compared.
package nbdread

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// The reader keeps this much in flight, as a kernel does that reads ahead: no
// more than window requests beyond the first byte that is still missing.
const (
	Size   = 256 << 10
	window = 16
)

// Client reads the default export of an NBD server over one connection.
// It is for one goroutine.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
	size int64
}

// New negotiates over conn, which it then owns.
func New(conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	if err := c.handshake(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("nbd: %w", err)
	}
	return c, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// handshake is the shortest one there is: NBD_OPT_EXPORT_NAME, no zeroes.
func (c *Client) handshake() error {
	var hello [18]byte
	if _, err := io.ReadFull(c.r, hello[:]); err != nil {
		return fmt.Errorf("read the greeting: %w", err)
	}
	if m := binary.BigEndian.Uint64(hello[8:]); m != protocol.NEGOTIATION_MAGIC_OPTION {
		return fmt.Errorf("greeting has magic %#x, want %#x", m, protocol.NEGOTIATION_MAGIC_OPTION)
	}
	const fixedNewstyleNoZeroes, exportName = 3, 1
	ask := binary.BigEndian.AppendUint32(nil, fixedNewstyleNoZeroes)
	ask = binary.BigEndian.AppendUint64(ask, protocol.NEGOTIATION_MAGIC_OPTION)
	ask = binary.BigEndian.AppendUint32(ask, exportName)
	ask = binary.BigEndian.AppendUint32(ask, 0) // the default export
	if _, err := c.conn.Write(ask); err != nil {
		return err
	}
	var export [10]byte
	if _, err := io.ReadFull(c.r, export[:]); err != nil {
		return fmt.Errorf("read the size: %w", err)
	}
	c.size = int64(binary.BigEndian.Uint64(export[:]))
	return nil
}

func (c *Client) request(cookie uint64, off int64, length int) error {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint32(b, protocol.TRANSMISSION_MAGIC_REQUEST)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, protocol.TRANSMISSION_TYPE_REQUEST_READ)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	_, err := c.conn.Write(b)
	return err
}

// reply reads the head of a reply; the data follow.
func (c *Client) reply() (cookie uint64, err error) {
	var b [16]byte
	if _, err := io.ReadFull(c.r, b[:]); err != nil {
		return 0, err
	}
	if m := binary.BigEndian.Uint32(b[:]); m != protocol.TRANSMISSION_MAGIC_REPLY {
		return 0, fmt.Errorf("reply has magic %#x, want %#x", m, protocol.TRANSMISSION_MAGIC_REPLY)
	}
	if e := binary.BigEndian.Uint32(b[4:]); e != 0 {
		return 0, fmt.Errorf("the server answered with error %d", e)
	}
	return binary.BigEndian.Uint64(b[8:]), nil
}

// ReadAt reads one range and waits for it.
func (c *Client) ReadAt(p []byte, off int64) error {
	if err := c.request(0, off, len(p)); err != nil {
		return err
	}
	if _, err := c.reply(); err != nil {
		return err
	}
	_, err := io.ReadFull(c.r, p)
	return err
}

// ReadAll reads the whole export once, from byte offset from (a multiple of
// Size) to the end and round to from again. Each byte is compared with
// want, and got counts them. It returns ctx's error when ctx ends first.
func (c *Client) ReadAll(ctx context.Context, from int64, want []byte, got *atomic.Int64) error {
	if c.size != int64(len(want)) {
		return fmt.Errorf("nbd: the export has %d bytes, want %d", c.size, len(want))
	}
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	err := c.stream(from, want, got)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *Client) stream(from int64, want []byte, got *atomic.Int64) error {
	total := (len(want) + Size - 1) / Size
	first := int(from / Size)
	chunk := func(k int) []byte { // the k-th to be read
		off := (first + k) % total * Size
		return want[off:min(off+Size, len(want))]
	}
	offset := func(k int) int64 { return int64((first + k) % total * Size) }
	buf := make([]byte, Size)
	here := make([]bool, total)
	head, asked := 0, 0
	for head < total {
		for ; asked < min(head+window, total); asked++ {
			if err := c.request(uint64(asked), offset(asked), len(chunk(asked))); err != nil {
				return fmt.Errorf("nbd: ask for %d: %w", offset(asked), err)
			}
		}
		cookie, err := c.reply()
		if err != nil {
			return fmt.Errorf("nbd: wait for %d: %w", offset(head), err)
		}
		k := int(cookie)
		if k < head || k >= asked || here[k] {
			return fmt.Errorf("nbd: reply %d was not asked for", cookie)
		}
		data := buf[:len(chunk(k))]
		if _, err := io.ReadFull(c.r, data); err != nil {
			return fmt.Errorf("nbd: read at %d: %w", offset(k), err)
		}
		if !bytes.Equal(data, chunk(k)) {
			return fmt.Errorf("nbd: the %d bytes at %d are not those of the file", len(data), offset(k))
		}
		got.Add(int64(len(data)))
		for here[k] = true; head < total && here[head]; head++ {
		}
	}
	return nil
}

// Comparer is written to in order and compares with what should come.
type Comparer struct {
	Want []byte
	Got  *atomic.Int64
}

// Write implements io.Writer.
func (c *Comparer) Write(b []byte) (int, error) {
	off := c.Got.Load()
	if int64(len(c.Want)) < off+int64(len(b)) || !bytes.Equal(b, c.Want[off:off+int64(len(b))]) {
		return 0, fmt.Errorf("the %d bytes at %d are not those of the file", len(b), off)
	}
	c.Got.Add(int64(len(b)))
	return len(b), nil
}
