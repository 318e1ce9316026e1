package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"viver.lan/internal/bench/nbdread"
	"viver.lan/internal/bench/process"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/netbed"
)

// Ports in the nodes.
const (
	nbdPort    = 10809
	swarmPort  = control.SwarmPort
	gossipPort = cluster.DefaultPort
	httpPort   = 80
)

// retryEach is how often a port that does not answer yet is tried again.
const retryEach = 5 * time.Millisecond

// readyTimeout is how long a program may take until its port answers.
const readyTimeout = 30 * time.Second

// system returns what runs s.
func (o *Options) system(s spec) (system, error) {
	switch {
	case s.system == "nbd" && s.kind == unthrottled:
		return nbdcopy{}, nil
	case s.system == "nbd":
		return nbdServer{}, nil
	case s.system == "http":
		return httpServer{}, nil
	case s.system == "vfield":
		return vfieldNodes{}, nil
	case s.system == "vfield-receive":
		return vfieldReceive{}, nil
	case s.system == "libtorrent":
		return newLibtorrent(o.scratch)
	case s.system == "anacrolix":
		return peers{command: []string{o.self, "worker", "anacrolix"}}, nil
	}
	return nil, fmt.Errorf("no system %q", s.system)
}

// dialWhenUp connects to a port of a program that is starting.
func dialWhenUp(ctx context.Context, from *netbed.Node, addr string, p *process.Process) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		conn, err := from.Dial(ctx, "tcp", addr)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s does not answer at %s: %w", p.Name, addr, errors.Join(context.Cause(ctx), err))
		case <-p.Done():
			return nil, p.Failed()
		case <-time.After(retryEach):
		}
	}
}

// whenUp waits for a port of the origin.
func (r *run) whenUp(ctx context.Context, port uint16) error {
	conn, err := dialWhenUp(ctx, r.bed.Node(0), r.bed.Node(0).AddrPort(port).String(), r.sender)
	if err != nil {
		return err
	}
	return conn.Close()
}

// direct is a system whose nodes have no part of their own: they read from
// the origin, and each byte is compared as it comes.
type direct struct{}

func (direct) prepare(context.Context, *run, int) error { return nil }
func (direct) verify(*run, int) error                   { return nil }

// nbdServer is nbdkit on node 0, read by every node's own client.
type nbdServer struct{ direct }

func (nbdServer) serve(ctx context.Context, r *run) (err error) {
	origin := r.bed.Node(0)
	r.sender, err = r.start(origin, false, "nbdkit", "--foreground", "--readonly",
		"--ipaddr", origin.Addr().String(), "--port", strconv.Itoa(nbdPort), "file", r.payload.file)
	if err != nil {
		return err
	}
	return r.whenUp(ctx, nbdPort)
}

func (nbdServer) fetch(ctx context.Context, r *run, i int, from int64) error {
	conn, err := dialWhenUp(ctx, r.bed.Node(i), r.bed.Node(0).AddrPort(nbdPort).String(), r.sender)
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := nbdread.New(conn)
	if err != nil {
		return err
	}
	return c.ReadAll(ctx, from, r.payload.bytes, &r.got[i])
}

// nbdcopy is nbdkit on node 0, read by nbdcopy into nothing: what the
// protocol costs at least.
type nbdcopy struct{ nbdServer }

func (nbdcopy) fetch(ctx context.Context, r *run, i int, _ int64) error {
	p, err := r.start(r.bed.Node(i), false, "nbdcopy", "nbd://"+r.bed.Node(0).AddrPort(nbdPort).String(), "null:")
	if err != nil {
		return err
	}
	r.receiver(i, p)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.Done():
	}
	if p.Err() != nil {
		return p.Failed()
	}
	r.got[i].Store(r.spec.size)
	return nil
}

// httpServer is Go's file server on node 0, which sends by sendfile.
type httpServer struct{ direct }

func (httpServer) serve(ctx context.Context, r *run) (err error) {
	r.sender, err = r.start(r.bed.Node(0), false, r.options.self, "worker", "http",
		r.bed.Node(0).AddrPort(httpPort).String(), r.payload.dir)
	if err != nil {
		return err
	}
	return r.whenUp(ctx, httpPort)
}

func (httpServer) fetch(ctx context.Context, r *run, i int, _ int64) error {
	client := http.Client{Transport: &http.Transport{DialContext: r.bed.Node(i).Dial}}
	defer client.CloseIdleConnections()
	url := "http://" + r.bed.Node(0).AddrPort(httpPort).String() + "/" + filepath.Base(r.payload.file)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.CopyBuffer(&nbdread.Comparer{Want: r.payload.bytes, Got: &r.got[i]}, resp.Body, make([]byte, nbdread.Size))
	return err
}

// vfieldNodes is V-FIELD: a daemon per node, read through its own NBD export.
// The origin runs beforehand; the others start when their reader does, so that
// nothing is fetched before, and their start is part of the time.
type vfieldNodes struct{ direct }

func (vfieldNodes) serve(ctx context.Context, r *run) (err error) {
	r.sender, err = r.startVField(ctx, 0, "--data", r.payload.dir)
	if err != nil {
		return err
	}
	return r.whenUp(ctx, swarmPort)
}

func (v vfieldNodes) fetch(ctx context.Context, r *run, i int, from int64) error {
	c, err := r.vfieldReader(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ReadAll(ctx, from, r.payload.bytes, &r.got[i])
}

// vfieldReader starts the daemon of node i and connects to its export.
func (r *run) vfieldReader(ctx context.Context, i int, flags ...string) (*nbdread.Client, error) {
	p, err := r.startVField(ctx, i, flags...)
	if err != nil {
		return nil, err
	}
	r.receiver(i, p)
	return r.connect(ctx, i, p)
}

// connect opens one more connection to the export of node i.
func (r *run) connect(ctx context.Context, i int, p *process.Process) (*nbdread.Client, error) {
	conn, err := dialWhenUp(ctx, r.bed.Node(i), loopback(nbdPort), p)
	if err != nil {
		return nil, err
	}
	return nbdread.New(conn)
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// startVField starts the daemon of node i with room for the whole file,
// unless flags say otherwise.
func (r *run) startVField(ctx context.Context, i int, flags ...string) (*process.Process, error) {
	n, origin := r.bed.Node(i), r.bed.Node(0)
	args := []string{"--listen", loopback(nbdPort), "--metainfo", r.payload.torrent, "--name", fmt.Sprintf("node-%d", i),
		"--swarm", n.AddrPort(swarmPort).String(), "--gossip", n.AddrPort(gossipPort).String(),
		"--status", r.statusSocket(i), "--cache", strconv.FormatInt(r.spec.size, 10)}
	if i > 0 {
		args = append(args, "--origin", origin.AddrPort(swarmPort).String(), "--seed", origin.AddrPort(gossipPort).String())
	}
	return r.start(n, false, r.options.VField, append(args, flags...)...)
}

func (r *run) statusSocket(i int) string { return filepath.Join(r.dir, fmt.Sprintf("%d.sock", i)) }

// vfieldReceive is V-FIELD with nobody reading: the file is fetched into the
// piece memory and verified there, which is what a BitTorrent client does.
type vfieldReceive struct{ vfieldNodes }

func (vfieldReceive) fetch(ctx context.Context, r *run, i int, _ int64) error {
	p, err := r.startVField(ctx, i)
	if err != nil {
		return err
	}
	r.receiver(i, p)
	status := control.NewClient(r.statusSocket(i))
	for {
		st, err := status.Status(ctx)
		if err == nil {
			r.got[i].Store(int64(float64(r.spec.size) * float64(st.Transfer.Have) / float64(r.payload.pieces)))
			if st.Transfer.Have == st.Transfer.Pieces {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Done():
			return p.Failed()
		case <-time.After(4 * retryEach):
		}
	}
}
