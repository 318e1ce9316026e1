package bench

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"viver.lan/internal/bench/nbdread"
	"viver.lan/internal/bench/process"
)

// peers is a BitTorrent client of somebody else on every node. Its program
// is called with
//
//	seed|fetch TORRENT DIRECTORY ADDRESS:PORT PEER:PORT...
//
// It prints "ready" once it listens, begins when it reads a line, prints
// "have BYTES" now and then and "done" when it has verified the whole file.
// Every node is told of the origin and of all nodes before it, so all know all.
type peers struct{ command []string }

//go:embed libtorrent.py
var libtorrentProgram []byte

// newLibtorrent runs libtorrent from Python (Debian: python3-libtorrent).
func newLibtorrent(scratch string) (system, error) {
	script := filepath.Join(scratch, "peer.py") // not the name of the module it imports
	if err := os.WriteFile(script, libtorrentProgram, 0o644); err != nil {
		return nil, err
	}
	return peers{command: []string{"/usr/bin/python3", script}}, nil
}

func (p peers) start(ctx context.Context, r *run, i int, verb, dir string) (*process.Process, error) {
	args := append(p.command[1:len(p.command):len(p.command)], verb, r.payload.torrent, dir, r.bed.Node(i).AddrPort(swarmPort).String())
	for other := range i {
		args = append(args, r.bed.Node(other).AddrPort(swarmPort).String())
	}
	proc, err := r.start(r.bed.Node(i), true, p.command[0], args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := proc.Hear(ctx, "ready", func(string) {}); err != nil {
		return nil, fmt.Errorf("%s is not ready: %w", proc.Name, err)
	}
	return proc, nil
}

func (p peers) serve(ctx context.Context, r *run) (err error) {
	if r.sender, err = p.start(ctx, r, 0, "seed", filepath.Dir(r.payload.dir)); err != nil {
		return err
	}
	return r.sender.Tell("go")
}

func (p peers) dir(r *run, i int) string { return filepath.Join(r.dir, strconv.Itoa(i)) }

func (p peers) prepare(ctx context.Context, r *run, i int) error {
	proc, err := p.start(ctx, r, i, "fetch", p.dir(r, i))
	if err == nil {
		r.receiver(i, proc)
	}
	return err
}

func (p peers) fetch(ctx context.Context, r *run, i int, _ int64) error {
	proc := r.receivers[i]
	if err := proc.Tell("go"); err != nil {
		return err
	}
	err := proc.Hear(ctx, "done", func(line string) {
		if n, err := strconv.ParseInt(strings.TrimPrefix(line, "have "), 10, 64); err == nil {
			r.got[i].Store(n)
		}
	})
	if err == nil {
		r.got[i].Store(r.spec.size)
	}
	return err
}

// verify compares what is on node i with the original.
func (p peers) verify(r *run, i int) error {
	f, err := os.Open(filepath.Join(p.dir(r, i), filepath.Base(r.payload.dir), filepath.Base(r.payload.file)))
	if err != nil {
		return err
	}
	defer f.Close()
	c := &nbdread.Comparer{Want: r.payload.bytes, Got: new(atomic.Int64)}
	if _, err := f.WriteTo(c); err != nil {
		return err
	}
	if c.Got.Load() != r.spec.size {
		return fmt.Errorf("%s has %d bytes, want %d", f.Name(), c.Got.Load(), r.spec.size)
	}
	return nil
}
