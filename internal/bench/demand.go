package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bench/nbdread"
	"viver.lan/internal/bench/process"
	"viver.lan/internal/control"
	"viver.lan/internal/cputime"
	"viver.lan/internal/metainfo"
)

// Demand reads: this many for each reader, after some that do not count.
const (
	demandSingle = 200
	demandMany   = 60
	warmUp       = 5
	smallRead    = 4 << 10
	// smallCache leaves a node no room to fetch the file in advance: what is
	// read is at the origin only.
	smallCache = "16M"
	quietFor   = 2 * time.Second
)

// demand measures how long single reads take when nothing but the origin has
// the data: 4 KiB from V-FIELD, the whole piece around it from NBD. Each
// reader has a connection of its own and waits for one read at a time; no
// piece is read twice.
func (r *run) demand(ctx context.Context) (res result, err error) {
	s := r.spec
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	clients := make([]*nbdread.Client, s.n)
	length := smallRead
	switch s.system {
	case "vfield":
		p, err := r.startVField(ctx, 1, "--cache", smallCache)
		if err != nil {
			return res, err
		}
		r.receiver(1, p)
		for i := range clients {
			if clients[i], err = r.connect(ctx, 1, p); err != nil {
				return res, err
			}
			defer clients[i].Close()
		}
		if err := r.quiet(ctx, p); err != nil {
			return res, err
		}
	default:
		length = metainfo.DefaultPieceLength
		for i := range clients {
			conn, err := r.bed.Node(1).Dial(ctx, "tcp", r.bed.Node(0).AddrPort(nbdPort).String())
			if err != nil {
				return res, err
			}
			if clients[i], err = nbdread.New(conn); err != nil {
				return res, err
			}
			defer conn.Close()
		}
	}
	each := demandSingle
	if s.n > 1 {
		each = demandMany
	}
	random := rand.New(rand.NewPCG(4, 2))
	pieces := random.Perm(r.payload.pieces - 1) // the last may be short
	if each = min(each, len(pieces)/s.n-warmUp); each < 1 {
		return res, fmt.Errorf("the file has %d pieces, too few for %d readers that read none twice", len(pieces), s.n)
	}
	before, err := r.sample()
	if err != nil {
		return res, err
	}
	var mu sync.Mutex
	var g errgroup.Group
	for i, c := range clients {
		mine := pieces[i*(each+warmUp) : (i+1)*(each+warmUp)]
		g.Go(func() error {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			took, err := timeReads(c, mine, length, r.payload.bytes)
			mu.Lock()
			defer mu.Unlock()
			res.latency = append(res.latency, took...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return res, fmt.Errorf("demand reads: %w", err)
	}
	after, err := r.sample()
	res.busy = cputime.Busy(before.cpu, after.cpu)
	return res, err
}

// timeReads reads length bytes in each of the pieces and returns the time each
// took but the first few, in milliseconds.
func timeReads(c *nbdread.Client, pieces []int, length int, want []byte) (took []float64, err error) {
	buf := make([]byte, length)
	for k, piece := range pieces {
		off := int64(piece) * metainfo.DefaultPieceLength
		if length < metainfo.DefaultPieceLength { // somewhere inside
			off += int64(k*smallRead) % (metainfo.DefaultPieceLength - smallRead)
			off = off / smallRead * smallRead
		}
		begin := time.Now()
		if err := c.ReadAt(buf, off); err != nil {
			return nil, err
		}
		if k >= warmUp {
			took = append(took, float64(time.Since(begin).Microseconds())/1e3)
		}
		if string(buf) != string(want[off:off+int64(length)]) {
			return nil, fmt.Errorf("the %d bytes at %d are not those of the file", length, off)
		}
	}
	return took, nil
}

// quiet waits until the node fetches nothing by itself any more.
func (r *run) quiet(ctx context.Context, p *process.Process) error {
	status := control.NewClient(r.statusSocket(1))
	var last uint64
	since := time.Now()
	for time.Since(since) < quietFor {
		st, err := status.Status(ctx)
		if err != nil {
			return err
		}
		if now := st.Transfer.FromOrigin + st.Transfer.FromPeers; now != last || st.Transfer.Peers == 0 {
			last, since = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s never stops fetching though it has room for %s only: %w", p.Name, smallCache, ctx.Err())
		case <-p.Done():
			return p.Failed()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}
