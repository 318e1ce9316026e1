package lan

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// snapFrom and snapTo keep a capture small while an image crosses the
	// network: of a frame longer than snapFrom only snapTo bytes are kept.
	// DHCP, gossip and the first bytes of every protocol fit whole.
	snapFrom = 1024
	snapTo   = 128

	pcapMagicNano = 0xa1b23c4d // timestamps in nanoseconds
	linkEthernet  = 1
)

// Capture is a pcap file (the classic format, readable by tcpdump and
// Wireshark) of every frame on a switch, each once. Bulk frames are cut.
type Capture struct {
	mu   sync.Mutex
	file *os.File
	buf  *bufio.Writer
	err  error // the first one; recording stops there
}

// NewCapture creates the file.
func NewCapture(path string) (*Capture, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	c := &Capture{file: f, buf: bufio.NewWriterSize(f, 256<<10)}
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], pcapMagicNano)
	binary.LittleEndian.PutUint16(h[4:], 2) // version 2.4
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], MaxFrame)
	binary.LittleEndian.PutUint32(h[20:], linkEthernet)
	_, c.err = c.buf.Write(h[:])
	return c, nil
}

func (c *Capture) record(frame []byte) {
	kept := frame
	if len(frame) > snapFrom {
		kept = frame[:snapTo]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now := time.Now()
	var h [16]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(now.Unix()))
	binary.LittleEndian.PutUint32(h[4:], uint32(now.Nanosecond()))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(kept)))
	binary.LittleEndian.PutUint32(h[12:], uint32(len(frame)))
	if _, c.err = c.buf.Write(h[:]); c.err == nil {
		_, c.err = c.buf.Write(kept)
	}
}

// Flush makes everything recorded so far readable in the file.
func (c *Capture) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = c.buf.Flush()
	}
	if c.err != nil {
		return fmt.Errorf("capture: %w", c.err)
	}
	return nil
}

// Close flushes and closes the file.
func (c *Capture) Close() error {
	err := c.Flush()
	if cerr := c.file.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("capture: %w", cerr)
	}
	return err
}
