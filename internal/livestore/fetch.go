package livestore

import (
	"context"
	"errors"
	"fmt"
	"io"
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

var errReplaced = errors.New("another live layer is wanted")

// fetch gets the layer of a state from the members and puts it into the directory. It
// ends with an error when ctx does, or when the overrides name another layer.
func (s *Store) fetch(ctx context.Context, state State, changed <-chan struct{}) error {
	p := state.Pointer
	state.Reason = "no other node has sent it yet"
	s.set(state)
	ctx, cancel := context.WithCancel(ctx)
	r := round{pointer: p, results: make(chan result, maxAtOnce), asked: make(map[Source]bool), pause: s.cfg.pause}
	defer func() {
		cancel()
		r.drain()
	}()
	for {
		now, _, err := Current(s.cfg.Network.Overrides())
		if err != nil || now != p {
			return errReplaced
		}
		wait := r.ask(ctx, s.cfg.Network.Sources(), s.cfg.hedge)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		case got := <-r.results:
			r.running--
			err := got.err
			if err == nil {
				err = s.lay(p.Digest, got.layer)
			}
			if err == nil {
				s.cfg.Log.Info("live layer fetched", "from", got.from, "bytes", p.Size)
				timer.Stop()
				return nil
			}
			s.cfg.Log.Debug("a member did not send the live layer", "member", got.from, "error", err)
			state.Reason = fmt.Sprintf("%s: %v", got.from, err)
			s.set(state)
		}
		timer.Stop()
	}
}

// round is the fetch of one layer.
type round struct {
	pointer livelayer.Pointer
	results chan result
	running int
	started time.Time       // of the last download
	asked   map[Source]bool // in this round; again when they say that they have it
	pause   time.Duration
	next    time.Time // when the next round begins, zero while this one goes on
}

type result struct {
	from  netip.AddrPort
	layer []byte
	err   error
}

// ask begins a download if it is time for one, and returns how long to wait until the
// next decision if nothing happens.
func (r *round) ask(ctx context.Context, sources []Source, hedge time.Duration) time.Duration {
	if r.running > 0 && time.Since(r.started) < hedge {
		return hedge - time.Since(r.started)
	}
	if r.running == maxAtOnce {
		return maxDownload
	}
	for _, from := range order(sources, r.pointer.Digest.Mark()) {
		if r.asked[from] {
			continue
		}
		r.asked[from] = true
		r.running++
		r.started = time.Now()
		r.next = time.Time{}
		go func() {
			layer, err := download(ctx, from.Addr, r.pointer.Digest, r.pointer.Size)
			if err == nil {
				err = r.pointer.Check(layer)
			}
			r.results <- result{from.Addr, layer, err}
		}()
		return hedge
	}
	switch now := time.Now(); {
	case r.running > 0: // they have time
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

// drain waits for the downloads, whose context has ended.
func (r *round) drain() {
	for ; r.running > 0; r.running-- {
		<-r.results
	}
}

// order returns the sources in the order in which to ask them: first those that say that
// they have the layer. Chance spreads the nodes over them.
func order(sources []Source, mark livelayer.Mark) []Source {
	list := slices.Clone(sources)
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
