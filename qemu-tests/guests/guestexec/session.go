package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/qemu-tests/guests/execproto"
)

// maxConcurrent bounds the commands that run at once; further requests wait
// in the port.
const maxConcurrent = 32

type agent struct {
	mu  sync.Mutex
	out writer
}

// writer is a stream whose writes can be told to give up.
type writer interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}

// session serves one host until it goes away. Commands that are still running
// then are killed: the next host gives the same IDs another meaning.
func (a *agent) session(ctx context.Context, in io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := a.out.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	if err := a.send(hello()); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(maxConcurrent)
	lines := bufio.NewReader(in)
	for {
		line, err := readLine(lines)
		if err != nil {
			cancel()
			// A port without a host takes nothing: free whoever still writes. It
			// fails on a closed one, where nobody can be stuck.
			_ = a.out.SetWriteDeadline(time.Now())
			return errors.Join(ignoreEOF(err), g.Wait())
		}
		var req execproto.Request
		if len(bytes.TrimSpace(line)) == 0 || json.Unmarshal(line, &req) != nil {
			continue // half a line of a host that died
		}
		g.Go(func() error {
			response := execute(ctx, req)
			if ctx.Err() != nil {
				return nil // nobody waits for it any more
			}
			if err := a.send(response); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
}

// send writes one message. The empty line before it ends whatever a former
// session left half said.
func (a *agent) send(message any) error {
	line, err := execproto.Encode(message)
	if r, ok := message.(execproto.Response); ok && err != nil {
		line, err = execproto.Encode(execproto.Response{ID: r.ID, Exit: -1, Error: err.Error()})
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err = a.out.Write(append([]byte("\n"), line...))
	return err
}

// readLine returns the next line; one beyond MaxLine is ignored.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) <= execproto.MaxLine {
			line = append(line, part...)
		} else {
			line = line[:0:0]
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func hello() execproto.Hello {
	h := execproto.Hello{Ready: true, Init: word("/proc/1/comm"), BootID: word("/proc/sys/kernel/random/boot_id")}
	h.Hostname, _ = os.Hostname() // an empty one says enough
	seconds, _, _ := strings.Cut(word("/proc/uptime"), " ")
	h.Uptime, _ = strconv.ParseFloat(seconds, 64)
	return h
}

// word returns a one-line file of /proc, or "".
func word(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
