// Package workers is what the benchmark runs inside its nodes as processes of
// their own: a file server, and anacrolix's BitTorrent Client as a stranger.
//
// It measures nothing and is no part of V-FIELD. The invariant: a worker ends
// with its context, or with its standard input.
package workers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/anacrolix/torrent"
	ametainfo "github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"golang.org/x/time/rate"
)

// Run is what this program does inside a node: "http ADDRESS DIRECTORY" or
// "anacrolix", followed by the words that package bench explains at its peers. It ends with ctx or,
// for peers, with in.
func Run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 3 && args[0] == "http":
		return serveFiles(ctx, args[1], args[2])
	case len(args) >= 5 && args[0] == "anacrolix":
		return anacrolix(ctx, args[1:], in, out)
	}
	return fmt.Errorf("worker %q is not known", args)
}

func serveFiles(ctx context.Context, addr, dir string) error {
	srv := &http.Server{Addr: addr, Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// anacrolix runs its Client as it does best: everything wanted at once, in
// blocks of 64 KiB.
func anacrolix(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	verb, file, dir := args[0], args[1], args[2]
	mi, err := ametainfo.LoadFromFile(file)
	if err != nil {
		return fmt.Errorf("read metainfo: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.SetListenAddr(args[3])
	cfg.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	cfg.Seed, cfg.NoDHT, cfg.DisableTrackers, cfg.DisableUTP, cfg.DisableIPv6 = true, true, true, true, true
	cfg.NoDefaultPortForwarding, cfg.DisablePEX, cfg.DisableWebtorrent, cfg.DisableWebseeds = true, true, true, true
	cfg.DisableAcceptRateLimiting = true
	cfg.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{}
	cfg.EstablishedConnsPerTorrent, cfg.TorrentPeersHighWater = 200, 400
	cfg.DialRateLimiter = rate.NewLimiter(rate.Inf, 0)
	cfg.Slogger = slog.New(slog.DiscardHandler)
	client, err := torrent.NewClient(cfg)
	if err != nil {
		return fmt.Errorf("start the client: %w", err)
	}
	defer client.Close()
	spec, err := torrent.TorrentSpecFromMetaInfoErr(mi)
	if err != nil {
		return err
	}
	spec.ChunkSize = 64 << 10
	t, _, err := client.AddTorrentSpec(spec)
	if err != nil {
		return err
	}
	if verb == "seed" {
		if err := t.VerifyDataContext(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "ready")
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return lines.Err()
	}
	var known []torrent.PeerInfo
	for _, a := range args[4:] {
		addr, err := netip.ParseAddrPort(a)
		if err != nil {
			return err
		}
		known = append(known, torrent.PeerInfo{Addr: net.TCPAddrFromAddrPort(addr), Trusted: true})
	}
	t.AddPeers(known)
	if verb == "fetch" {
		t.DownloadAll()
		for t.BytesMissing() > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-t.Complete().On():
			case <-time.After(500 * time.Millisecond):
				fmt.Fprintln(out, "have", t.BytesCompleted())
			}
		}
		fmt.Fprintln(out, "done")
	}
	for lines.Scan() { // go on seeding until told to end
	}
	return lines.Err()
}
