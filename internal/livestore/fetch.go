package livestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"viver.lan/internal/livelayer"
)

const (
	// hedgeAfter is how long a member may take before another one is asked as well, up
	// to maxAtOnce: one that lies or is slow delays a layer by so much.
	hedgeAfter = 1500 * time.Millisecond
	maxAtOnce  = 3
	// maxDownload and maxSilence bound what one member may take.
	maxDownload = 30 * time.Second
	maxSilence  = 5 * time.Second
	// firstPause is the time between two rounds of asking all members, which doubles up
	// to longestPause while nobody has the layer. A member that says that it has it is
	// asked at once.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// HTTPDir is where members serve their layers, by digest.
const HTTPDir = "boot/live/"

var errReplaced = errors.New("another override names a live layer")

// fetch gets the layer of a state from the members and puts it into the directory. It
// ends with an error when ctx does, or when another override names a layer.
func (s *Store) fetch(ctx context.Context, state State, changed <-chan struct{}) error {
	p := state.Pointer
	state.Reason = "no other node has sent it yet"
	s.set(state)
	r := newRound(ctx, p.Digest, p.Size, s.cfg)
	defer r.end()
	for {
		// The owner may point to the same layer again, and have sent it to this node.
		now, version, err := Current(s.cfg.Network.Overrides(), s.cfg.Key)
		if err != nil || now != p || version != state.Version {
			return errReplaced
		}
		got, ok := r.await(r.ask(), changed)
		if err := ctx.Err(); err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err = got.err; err == nil {
			err = p.Check(got.layer)
		}
		if err == nil {
			err = s.lay(p.Digest, got.layer)
		}
		if err == nil {
			s.cfg.Log.Info(s.cfg.What+" fetched", "from", got.from, "bytes", p.Size)
			return nil
		}
		s.cfg.Log.Debug("a member did not send the "+s.cfg.What, "member", got.from, "error", err)
		state.Reason = fmt.Sprintf("%s: %v", got.from, err)
		s.set(state)
	}
}

// Get returns a layer: the node's own, or a member's. It need not be the one in use.
func (s *Store) Get(ctx context.Context, d livelayer.Digest) ([]byte, error) {
	layer, err := readDigest(s.cfg.Dir, d)
	if err == nil {
		return layer, nil
	}
	r := newRound(ctx, d, livelayer.MaxSize, s.cfg)
	defer r.end()
	for ctx.Err() == nil {
		wait := r.ask()
		if r.over() {
			return nil, fmt.Errorf("%s %s: %w", s.cfg.What, d, ErrNotHere)
		}
		if got, ok := r.await(wait, nil); ok && got.err == nil {
			return got.layer, nil
		}
	}
	return nil, fmt.Errorf("%s %s: %w", s.cfg.What, d, ctx.Err())
}

// round is the search for one layer. Whoever makes keys makes members, as many as it likes,
// so addresses are counted: in a round each is asked once, and once more if it did not say
// then that it has the layer and does now; and no two downloads are from the same one. So
// an address costs a round 60 s of one of the downloads, whatever it does.
type round struct {
	cfg     Config
	digest  livelayer.Digest
	limit   int64 // bytes
	ctx     context.Context
	cancel  context.CancelFunc
	results chan result
	running map[netip.Addr]bool
	started time.Time           // of the last download
	asked   map[netip.Addr]bool // in this round; true: it said that it has the layer
	pause   time.Duration
	next    time.Time // when the next round begins, zero while this one goes on
}

type result struct {
	from  netip.AddrPort
	layer []byte
	err   error
}

// newRound returns the search for a layer of up to limit bytes, until ctx ends or end.
func newRound(ctx context.Context, d livelayer.Digest, limit int64, cfg Config) *round {
	ctx, cancel := context.WithCancel(ctx)
	return &round{cfg: cfg, digest: d, limit: limit, ctx: ctx, cancel: cancel, pause: cfg.pause,
		results: make(chan result, maxAtOnce), running: make(map[netip.Addr]bool), asked: make(map[netip.Addr]bool)}
}

// ask begins a download if it is time for one, and returns how long to wait until the
// next decision if nothing happens.
func (r *round) ask() time.Duration {
	if len(r.running) > 0 && time.Since(r.started) < r.cfg.hedge {
		return r.cfg.hedge - time.Since(r.started)
	}
	if len(r.running) == maxAtOnce {
		return maxDownload
	}
	mark := r.digest.Mark()
	for _, from := range order(r.cfg.Network.Sources(), mark) {
		addr, has := from.Addr.Addr(), from.Has == mark
		if said, asked := r.asked[addr]; r.running[addr] || asked && (said || !has) {
			continue
		}
		r.asked[addr], r.running[addr] = has, true
		r.started = time.Now()
		r.next = time.Time{}
		go func() {
			layer, err := download(r.ctx, from.Addr, r.digest, r.limit)
			r.results <- result{from.Addr, layer, err}
		}()
		return r.cfg.hedge
	}
	switch now := time.Now(); {
	case len(r.running) > 0: // they have time
		return maxDownload
	case r.next.IsZero():
		r.next = now.Add(r.pause)
		r.pause = min(2*r.pause, longestPause)
	case !now.Before(r.next):
		clear(r.asked)
		r.next = time.Time{}
		return 0
	}
	return time.Until(r.next)
}

// await waits so long for the end of a download, and no longer than until changed or the
// end of the search.
func (r *round) await(wait time.Duration, changed <-chan struct{}) (got result, ok bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
	case <-changed:
	case <-timer.C:
	case got = <-r.results:
		delete(r.running, got.from.Addr())
		return got, true
	}
	return result{}, false
}

// over reports whether all were asked, and none of them has the layer.
func (r *round) over() bool { return !r.next.IsZero() }

// end ends the downloads, and waits for them.
func (r *round) end() {
	r.cancel()
	for range r.running {
		<-r.results
	}
}

// order returns one source of each address in the order in which to ask them: first those
// that say that they have the layer. Chance spreads the nodes over them.
func order(sources []Source, mark livelayer.Mark) []Source {
	each := make(map[netip.Addr]Source)
	for _, i := range rand.Perm(len(sources)) {
		s := sources[i]
		if other, ok := each[s.Addr.Addr()]; !ok || other.Has != mark {
			each[s.Addr.Addr()] = s
		}
	}
	list := slices.Collect(maps.Values(each))
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b Source) int {
		switch {
		case (a.Has == mark) == (b.Has == mark):
			return 0
		case a.Has == mark:
			return -1
		}
		return 1
	})
	return list
}

// download gets a layer of up to limit bytes from a member.
func download(ctx context.Context, from netip.AddrPort, d livelayer.Digest, limit int64) (layer []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxDownload, errSlow)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(maxSilence, func() { stop(errSlow) })
	defer silence.Stop()
	layer, err = get(ctx, from, d, limit, func() { silence.Reset(maxSilence) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && livelayer.PointTo(layer).Digest != d {
		err = errors.New("it sent other bytes")
	}
	return layer, err
}

var errSlow = errors.New("it is too slow")

// get asks one member, and calls progress whenever something has come.
func get(ctx context.Context, from netip.AddrPort, d livelayer.Digest, limit int64, progress func()) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: from.String(), Path: "/" + HTTPDir + d.String()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	// A member sends nobody elsewhere, and decides nothing about connections.
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength > limit {
		return nil, fmt.Errorf("it answered %s with %d bytes, want up to %d", resp.Status, resp.ContentLength, limit)
	}
	layer, err := io.ReadAll(io.LimitReader(&reporter{resp.Body, progress}, limit+1))
	if err == nil && int64(len(layer)) > limit {
		err = fmt.Errorf("it sent more than %d bytes", limit)
	}
	return layer, err
}

// reporter calls progress after each read.
type reporter struct {
	io.Reader
	progress func()
}

func (r *reporter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.progress()
	}
	return n, err
}
