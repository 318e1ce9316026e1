package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// consoleTail bounds what is kept in memory of a console, in bytes. The file
// has everything.
const consoleTail = 256 << 10

// consolePause is the time between two looks at a console. QEMU writes single characters,
// and whoever waits for a line looks at all that has come: without a pause that keeps a
// processor of the host busy, which the machine then has not.
const consolePause = 10 * time.Millisecond

// Console is a machine's serial port.
type Console struct {
	conn net.Conn
	file io.WriteCloser

	mu      sync.Mutex
	tail    []byte
	total   uint64        // bytes, the tail's among them
	changed chan struct{} // closed and replaced at every change
	ended   bool
}

func newConsole(conn net.Conn, path string) (*Console, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("console log: %w", err)
	}
	return &Console{conn: conn, file: f, changed: make(chan struct{})}, nil
}

// run copies the port to file and tail until QEMU is gone.
func (c *Console) run() {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 {
			_, _ = c.file.Write(buf[:n]) // a full disk is no reason to end the run
		}
		c.mu.Lock()
		c.tail = append(c.tail, buf[:n]...)
		c.total += uint64(n)
		if over := len(c.tail) - consoleTail; over > 0 {
			c.tail = append(c.tail[:0], c.tail[over:]...)
		}
		c.ended = err != nil
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			_ = c.file.Close()
			return
		}
		time.Sleep(consolePause)
	}
}

// escapes are the terminal sequences that firmware and GRUB draw with.
const escapes = "\x1b(?:\\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>78cM])"

// Text is the last part of what the console showed, without the sequences that
// only a terminal understands.
func (c *Console) Text() string {
	c.mu.Lock()
	raw := bytes.Clone(c.tail)
	c.mu.Unlock()
	return plain(raw)
}

func plain(raw []byte) string {
	clean := regexp.MustCompile(escapes).ReplaceAll(raw, nil)
	return string(bytes.ReplaceAll(clean, []byte("\r"), nil))
}

// count is how many bytes came.
func (c *Console) count() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// LastLine is the last line with anything in it.
func (c *Console) LastLine() string {
	lines := strings.Split(strings.TrimSpace(c.Text()), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// Type sends text as if typed at the console; a line ends with "\n".
func (c *Console) Type(text string) error {
	if _, err := io.WriteString(c.conn, text); err != nil {
		return fmt.Errorf("type on the console: %w", errMachineOff)
	}
	return nil
}

// wait returns when the console's text matches.
func (c *Console) wait(ctx context.Context, what *regexp.Regexp) (string, error) {
	for {
		c.mu.Lock()
		changed, ended := c.changed, c.ended
		text := plain(c.tail)
		c.mu.Unlock()
		if found := what.FindString(text); found != "" {
			return found, nil
		}
		if ended {
			return "", errMachineOff
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}
