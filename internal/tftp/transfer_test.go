package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func transferOn(p *port, options ...option) *Transfer {
	l := limits()
	return &Transfer{request: request{name: "file", mode: "octet", options: options}, from: clientSide, limits: &l, conn: p, heard: func() {}}
}

func fileOf(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	return b
}

// A file arrives whole through any network that lets some packets through, at
// clients with any habit, with windows or without, and costs a bounded number of
// packets.
func TestFilesArrive(t *testing.T) {
	troubles := map[string]trouble{
		"good": {}, "loses 5 %": {lost: 0.05}, "loses 20 %": {lost: 0.2}, "doubles all": {twice: 1},
		"disorders": {late: 0.1}, "does all that": {lost: 0.05, twice: 0.1, late: 0.1},
	}
	for what, trouble := range troubles {
		for _, window := range []int{1, 4, 16} {
			for habit := patient; habit <= always; habit++ {
				for _, size := range []int{0, 1, 511, 512, 513, 512 * 16, 300001} {
					name := fmt.Sprintf("network %s, windows of %d, habit %d, %d bytes", what, window, habit, size)
					synctest.Test(t, func(t *testing.T) { arrives(t, name, trouble, window, habit, size) })
				}
			}
		}
	}
}

func arrives(t *testing.T, name string, trouble trouble, window int, habit habit, size int) {
	w, here, there := newWire(trouble, uint64(size))
	c := &client{Conn: there, server: serverSide, habit: habit, block: 512, window: window}
	var options []option
	if window > 1 {
		options = ask("windowsize "+strconv.Itoa(window), "tsize 0")
	}
	wait := c.start()
	sender := transferOn(here, options...)
	sender.limits.Retries = 60 // so many packets are not lost in a row
	n, err := sender.Send(t.Context(), bytes.NewReader(fileOf(size)), int64(size))
	if got := wait(); err != nil || n != int64(size) || got != "all" || !bytes.Equal(c.got.Bytes(), fileOf(size)) {
		t.Errorf("%s: sent %d, %v; the client has %d and says %q", name, n, err, c.got.Len(), got)
	}
	blocks := size/512 + 1
	most := blocks
	switch {
	case trouble.lost > 0 || trouble.late > 0:
		return // time-outs send what they send
	case trouble.twice > 0 && window > 1: // a copy looks like a gap
		most = (repeatsPerBlock+1)*blocks + repeatsFree
	}
	if w.sent > most {
		t.Errorf("%s: %d packets for %d blocks, want %d at most", name, w.sent, blocks, most)
	}
}

// The number of a block has 16 bits.
func TestLongFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8*2*65536 + 5
		_, here, there := newWire(trouble{lost: 0.001}, 1)
		c := &client{Conn: there, server: serverSide, habit: once, block: 8, window: 16}
		defer c.start()()
		_, err := transferOn(here, ask("blksize 8", "windowsize 16")...).Send(t.Context(), bytes.NewReader(fileOf(size)), size)
		if err != nil || !bytes.Equal(c.got.Bytes(), fileOf(size)) {
			t.Errorf("%v, %d bytes", err, c.got.Len())
		}
	})
}

// Whoever has the address in a request and did not ask gets a few small packets.
func TestSilentClientGetsLittle(t *testing.T) {
	for name, c := range map[string]struct {
		options []option
		data    int
		takes   time.Duration
	}{
		"options":    {ask("windowsize 16", "blksize 1468"), 0, 23 * time.Second},
		"no options": {nil, 5, 23 * time.Second},
		"a time-out": {ask("timeout 3"), 0, 33 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, here, there := newWire(trouble{}, 1)
			begin := time.Now()
			n, err := transferOn(here, c.options...).Send(t.Context(), bytes.NewReader(fileOf(99999)), 99999)
			if n != 0 || err == nil || w.sent != c.data {
				t.Errorf("%s: %d blocks, %d confirmed, %v", name, w.sent, n, err)
			}
			if took := time.Since(begin); took != c.takes {
				t.Errorf("%s: given up after %v", name, took)
			}
			if time.Sleep(delay); len(there.in) != 5 {
				t.Errorf("%s: %d packets", name, len(there.in))
			}
		})
	}
}

// A client that confirms one block of each window could have each of them sent
// again and again.
func TestOneBlockAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const blocks = 400
		w, here, there := newWire(trouble{}, 1)
		c := &client{Conn: there, server: serverSide}
		begin := time.Now()
		go func() {
			for block := range int64(blocks + 1) {
				time.Sleep(10 * delay)
				c.ack(block)
			}
		}()
		n, err := transferOn(here, ask("windowsize 16")...).Send(t.Context(), bytes.NewReader(fileOf(blocks*512-1)), -1)
		if err != nil || n != blocks*512-1 {
			t.Errorf("%d bytes, %v", n, err)
		}
		seconds := int(time.Since(begin)/time.Second) + 1
		if most := (repeatsPerBlock+1)*blocks + repeatsFree + 16*seconds; w.sent > most {
			t.Errorf("%d packets for %d blocks, want %d at most", w.sent, blocks, most)
		}
	})
}

// Firmware asks for a file's size, and aborts.
func TestClientEndsATransfer(t *testing.T) {
	for started, confirm := range map[bool]func(*client){false: func(*client) {}, true: func(c *client) { c.ack(0) }} {
		synctest.Test(t, func(t *testing.T) {
			_, here, there := newWire(trouble{}, 1)
			c := &client{Conn: there, server: serverSide}
			confirm(c)
			time.AfterFunc(2*delay, func() { c.send(opError, 8, "User aborted the transfer\x00") })
			n, err := transferOn(here, ask("tsize 0")...).Send(t.Context(), bytes.NewReader(fileOf(99)), 99)
			var aborted *Aborted
			if !errors.As(err, &aborted) || aborted.Started != started || n != 0 || *aborted.Reason != (Error{8, "User aborted the transfer"}) {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

// What does not come from the client, or is nothing that it should send, changes
// nothing.
func TestOthersAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, here, there := newWire(trouble{}, 1)
		c := &client{Conn: there, server: serverSide, block: 512, window: 1}
		other := port{wire: w, address: serverSide, peer: here}
		for range 5 {
			(&client{Conn: &other, server: serverSide}).ack(1)
			(&client{Conn: &other, server: serverSide}).send(opError, 0, "go away\x00")
			c.send(opOptionAck, 0, "")
			c.ack(7)
		}
		defer c.start()()
		n, err := transferOn(here).Send(t.Context(), bytes.NewReader(fileOf(600)), 600)
		if n != 600 || err != nil || w.sent != 2 {
			t.Errorf("%d bytes in %d packets, %v", n, w.sent, err)
		}
	})
}

// A transfer ends at once when the server does, and when its file cannot be read.
func TestTransferEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, here, _ := newWire(trouble{}, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := transferOn(here).Send(ctx, bytes.NewReader(nil), 0)
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != 2500*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A file that breaks off is never whole to the client.
func TestFileBreaksOff(t *testing.T) {
	for what, c := range map[string]struct {
		file io.Reader
		size int64
		told string
	}{
		"a time-out":         {iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(fileOf(99999)))), -1, "timeout"},
		"the daemon's end":   {io.MultiReader(bytes.NewReader(fileOf(700)), iotest.ErrReader(io.ErrUnexpectedEOF)), -1, "unexpected EOF"},
		"less than promised": {bytes.NewReader(fileOf(700)), 701, "the file ends after 700 bytes of 701"},
		"nothing":            {bytes.NewReader(nil), 1, "the file ends after 0 bytes of 1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, here, there := newWire(trouble{}, 1)
			wait := (&client{Conn: there, server: serverSide, block: 512, window: 1}).start()
			_, err := transferOn(here).Send(t.Context(), c.file, c.size)
			if err == nil {
				t.Fatalf("%s: no error", what)
			}
			_, _ = here.WriteToUDPAddrPort(errorPacket(err), clientSide)
			if told := wait(); told != c.told {
				t.Errorf("%s: the client is told %q", what, told)
			}
		})
	}
}

// A text gets longer on its way.
func TestTextIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, here, there := newWire(trouble{}, 1)
		c := &client{Conn: there, server: serverSide, block: 512, window: 1}
		defer c.start()()
		asked := transferOn(here, ask("tsize 0")...)
		asked.request.mode = "netascii"
		n, err := asked.Send(t.Context(), bytes.NewReader(bytes.Repeat([]byte("line\n"), 200)), 1000)
		if n != 1200 || err != nil || c.got.String() != string(bytes.Repeat([]byte("line\r\n"), 200)) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}
