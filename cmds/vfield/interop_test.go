package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	ametainfo "github.com/anacrolix/torrent/metainfo"
)

// BitTorrent clients by other people fetch the whole image from our nodes
// and, as its only source, feed one. A tracker of our own tells them whom to
// ask; they have no other way to find a node.

// tracker answers every announce (BEP 3, 23) with these peers. It returns the
// image's metainfo with its address in it.
func tracker(t *testing.T, pic *picture, peers ...netip.AddrPort) (torrent string) {
	t.Helper()
	var compact []byte
	for _, p := range peers {
		ip := p.Addr().As4()
		compact = append(append(compact, ip[:]...), byte(p.Port()>>8), byte(p.Port()))
	}
	l, err := net.Listen("tcp", address(254, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(bencode.MustMarshal(map[string]any{"interval": 30, "complete": len(peers), "incomplete": 1, "peers": compact}))
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })

	mi, err := ametainfo.LoadFromFile(pic.torrent)
	if err != nil {
		t.Fatal(err)
	}
	mi.Announce = "http://" + l.Addr().String() + "/announce"
	torrent = filepath.Join(t.TempDir(), "image.torrent")
	f, err := os.Create(torrent)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := mi.Write(f); err != nil {
		t.Fatal(err)
	}
	return torrent
}

// strangerPort is where strangers listen.
const strangerPort = 6900

// client is a stranger's BitTorrent client.
type client struct {
	name string
	// needs skips the test when it is missing and prints its version.
	needs func(t *testing.T)
	// command runs it at an address. Whatever of torrent is in dir is
	// verified first; what is missing is fetched, what is there is served.
	command func(t *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd
}

// clients are the strangers: as people start them, with everything that they
// have on by default (encryption preferred, uTP, DHT, local discovery), and
// bare.
func clients() []client {
	aria2 := client{name: "aria2", needs: func(t *testing.T) { needs(t, "aria2c", "--version") },
		command: func(_ *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
			return exec.Command("aria2c", "--dir="+dir, fmt.Sprintf("--listen-port=%d", at.Port()), "--interface="+at.Addr().String(),
				"--check-integrity=true", "--seed-ratio=0.0", "--summary-interval=5", torrent)
		}}
	aria2Bare := aria2
	aria2Bare.name = "aria2 bare"
	aria2Bare.command = func(t *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
		cmd := aria2.command(t, at, torrent, dir)
		cmd.Args = append(cmd.Args, "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=false")
		return cmd
	}
	aria2Encrypted := aria2
	aria2Encrypted.name = "aria2 preferring encryption"
	aria2Encrypted.command = func(t *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
		cmd := aria2.command(t, at, torrent, dir)
		cmd.Args = append(cmd.Args, "--bt-require-crypto=false", "--bt-min-crypto-level=arc4", "--bt-enable-lpd=true")
		return cmd
	}
	transmission := client{name: "transmission", needs: func(t *testing.T) { needs(t, "transmission-cli", "--version") },
		command: func(t *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
			return transmissionCommand(t, at, torrent, dir, "-ep")
		}}
	transmissionBare := transmission
	transmissionBare.name = "transmission bare"
	transmissionBare.command = func(t *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
		return transmissionCommand(t, at, torrent, dir, "-et", `"utp-enabled": false`, `"dht-enabled": false`, `"pex-enabled": false`, `"lpd-enabled": false`)
	}
	libtorrent := client{name: "libtorrent", needs: needsLibtorrent,
		command: func(_ *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
			return exec.Command(python, "-c", libtorrentScript, torrent, dir, at.String(), "{}")
		}}
	libtorrentBare := libtorrent
	libtorrentBare.name = "libtorrent bare"
	libtorrentBare.command = func(_ *testing.T, at netip.AddrPort, torrent, dir string) *exec.Cmd {
		return exec.Command(python, "-c", libtorrentScript, torrent, dir, at.String(),
			`{"enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
			"enable_outgoing_utp": False, "enable_incoming_utp": False}`)
	}
	return []client{aria2, aria2Bare, aria2Encrypted, transmission, transmissionBare, libtorrent, libtorrentBare}
}

// clientNamed is one of clients.
func clientNamed(name string) client {
	all := clients()
	return all[slices.IndexFunc(all, func(c client) bool { return c.name == name })]
}

// transmissionCommand runs transmission-cli, which takes its settings from a
// file. Told to verify (-v) it sometimes takes the pause for the end.
func transmissionCommand(t *testing.T, at netip.AddrPort, torrent, dir, encryption string, settings ...string) *exec.Cmd {
	config := t.TempDir()
	settings = append(settings, fmt.Sprintf(`"bind-address-ipv4": %q`, at.Addr()))
	if err := os.WriteFile(filepath.Join(config, "settings.json"), []byte("{"+strings.Join(settings, ", ")+"}"), 0o644); err != nil {
		t.Fatal(err)
	}
	return exec.Command("transmission-cli", "-g", config, "-w", dir, "-p", fmt.Sprint(at.Port()), encryption, "-M", torrent)
}

// python is the interpreter that Debian's python3-libtorrent is for.
const python = "/usr/bin/python3"

func needsLibtorrent(t *testing.T) {
	t.Helper()
	out, err := exec.Command(python, "-c", "import libtorrent; print(libtorrent.__version__)").CombinedOutput()
	if err != nil {
		t.Skipf("python3-libtorrent is not installed: %s", out)
	}
	strangers().Add(t, "libtorrent", strings.TrimSpace(string(out)))
}

const libtorrentScript = `
import sys, time, libtorrent as lt
torrent, path, at, settings = sys.argv[1:5]
s = lt.session(dict({"listen_interfaces": at, "outgoing_interfaces": at.split(":")[0],
    "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.connect_notification | lt.alert.category_t.status_notification}, **eval(settings)))
h = s.add_torrent({"ti": lt.torrent_info(torrent), "save_path": path})
show = (lt.alert.category_t.error_notification | lt.alert.category_t.connect_notification |
    lt.alert.category_t.status_notification)
while True:
    for a in s.pop_alerts():
        if a.category() & show:
            print(a.message(), flush=True)
    time.sleep(0.2)
`

// fetch lets the client download the image as the nth machine, and waits
// until all of it is there.
func (c client) fetch(t *testing.T, n int, pic *picture, from ...netip.AddrPort) *process {
	t.Helper()
	dir := t.TempDir()
	p := start(t, c.name, c.command(t, address(n, strangerPort), tracker(t, pic, from...), dir), printing(t, c.name))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s has: %s", c.name, pic.whole(filepath.Join(dir, pic.info.Name)))
		}
	})
	p.until("has the whole image", func() bool { return pic.whole(filepath.Join(dir, pic.info.Name)) == "" })
	return p
}

// feed starts the client as the nth machine with the whole image.
func (c client) feed(t *testing.T, n int, pic *picture) netip.AddrPort {
	t.Helper()
	at := address(n, strangerPort)
	start(t, c.name, c.command(t, at, tracker(t, pic), filepath.Dir(pic.dir)), printing(t, c.name))
	return at
}

// withEachClient runs a test with each client, on machines n and n+1.
func withEachClient(t *testing.T, test func(t *testing.T, c client, n int, pic *picture)) {
	if !onOneLink(t) {
		return
	}
	pic := newPicture(t, 6<<20+4099)
	for i, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			c.needs(t)
			t.Parallel()
			test(t, c, 10+2*i, pic)
		})
	}
}

func TestNetnsStrangersFetchFromUs(t *testing.T) {
	withEachClient(t, func(t *testing.T, c client, n int, pic *picture) {
		ours := startVfield(t, n, pic, "--data", pic.dir)
		c.fetch(t, n+1, pic, ours.swarm)
		if sent := ours.transfer().Sent; sent < uint64(pic.info.Size) {
			t.Errorf("sent %d bytes of %d", sent, pic.info.Size)
		}
	})
}

func TestNetnsStrangersFeedUs(t *testing.T) {
	withEachClient(t, func(t *testing.T, c client, n int, pic *picture) {
		needs(t, "nbdcopy", "--version")
		ours := startVfield(t, n, pic, "--peer", c.feed(t, n+1, pic).String())
		ours.readAll(pic)
		until(t, "our node holds everything", ours.complete)
	})
}

// Two nodes of ours and two strangers, all of whom know the others: the
// strangers' pieces are as good as ours.
func TestNetnsStrangersAmongUs(t *testing.T) {
	if !onOneLink(t) {
		return
	}
	pic := newPicture(t, 12<<20+1)
	origin := startOrigin(t, pic)
	two := startVfield(t, 2, pic, "--origin", origin.swarm.String(),
		"--peer", address(11, strangerPort).String()+","+address(12, strangerPort).String())
	t.Run("all", func(t *testing.T) {
		for i, name := range []string{"libtorrent", "aria2"} {
			t.Run(name, func(t *testing.T) {
				c := clientNamed(name)
				c.needs(t)
				t.Parallel()
				c.fetch(t, 11+i, pic, origin.swarm, two.swarm, address(23-11-i, strangerPort))
			})
		}
	})
	until(t, "our second node holds everything", two.complete)
	two.readAll(pic)
	for _, d := range []*daemon{origin, two} {
		t.Logf("%s sent %d of %d bytes", d.name, d.transfer().Sent, pic.info.Size)
	}
}

// A node with little room gives pieces up while a stranger downloads from it
// and can reach nobody else. libtorrent is told what went (BEP 54) and gets it
// all, because somebody reads the volume again and again. The others know no
// word for it: they ask, are rejected (BEP 6), and ask again. Nobody hangs up
// and readers read on; when the origin can be reached, they get the rest there.
func TestNetnsStrangersOfALittleNode(t *testing.T) {
	if !onOneLink(t) {
		return
	}
	needs(t, "nbdcopy", "--version")
	pic := newPicture(t, 6<<20+4099)
	for i, name := range []string{"libtorrent", "aria2", "transmission"} {
		t.Run(name, func(t *testing.T) {
			c := clientNamed(name)
			c.needs(t)
			origin := startOrigin(t, pic)
			n := 70 + i
			heal := cut(t, origin.swarm.Addr().String()+"/32", address(n, 0).Addr().String()+"/32")
			healed := sync.OnceFunc(heal)
			defer healed()
			little := startVfield(t, 2, pic, "--cache", "1M", "--origin", origin.swarm.String())
			stopped, reads := make(chan struct{}), make(chan int, 1)
			go func() {
				n := 0
				defer func() { reads <- n }()
				for ; ; n++ {
					select {
					case <-stopped:
						return
					default:
						little.readAll(pic)
					}
					if name != "libtorrent" && n%20 == 19 && len(strangersOf(little)) > 0 {
						healed()
					}
				}
			}()
			c.fetch(t, n, pic, little.swarm)
			close(stopped)
			t.Logf("the volume was read %d times; the node sent %d of %d bytes", <-reads, little.transfer().Sent, pic.info.Size)
			// Both ends may have dialled.
			if met := strangersOf(little); len(met) == 0 || len(met) > 2 {
				t.Errorf("the stranger came %d times: %q", len(met), met)
			}
		})
	}
}

// strangersOf lists the connections of strangers that a node has had.
func strangersOf(d *daemon) (lines []string) {
	for line := range strings.SplitSeq(d.log.String(), "\n") {
		if strings.Contains(line, "msg=peer ") && strings.Contains(line, "kind=stranger") {
			lines = append(lines, line)
		}
	}
	return lines
}
