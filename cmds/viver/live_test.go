package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/manifest"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
	"viver.lan/internal/sign"
)

// liveNet is a network whose nodes have what of a block daemon and an agent brings live
// layers to all: the membership, the store, the socket, and the files that are served.
type liveNet struct {
	t     *testing.T
	net   byte // its addresses are 127.0.net.N
	owner sign.PrivateKey
	key   string // file of the owner's key
	nodes []*netNode
}

// netNode is one of its machines.
type netNode struct {
	notify.Notifier
	cluster *cluster.Cluster
	store   *livestore.Store
	dir     string
	socket  string
	stop    func()
}

func newLiveNet(t *testing.T, number byte) *liveNet {
	t.Helper()
	n := &liveNet{t: t, net: number, key: filepath.Join(t.TempDir(), "owner.key")}
	var err error
	if n.owner, _, err = sign.OpenKey(n.key); err != nil {
		t.Fatal(err)
	}
	return n
}

// image is one that lacks all that is not looked at.
type image struct{ manifest manifest.Manifest }

func (i *image) Manifest() *manifest.Manifest   { return &i.manifest }
func (*image) Signed() (text, signature []byte) { return nil, nil }
func (*image) Metainfo() []byte                 { return nil }
func (*image) Open(context.Context, string) (io.ReadSeekCloser, error) {
	return nil, os.ErrNotExist
}

const filesPort = 6880

// start starts the next node, which is told to join the one before it.
func (l *liveNet) start() *netNode {
	l.t.Helper()
	i := len(l.nodes) + 1
	addr := netip.AddrFrom4([4]byte{127, 0, l.net, byte(i)})
	n := &netNode{dir: l.t.TempDir()}
	log := slog.New(slog.NewTextHandler(l.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", i)
	var seeds []netip.AddrPort
	if i > 1 {
		seeds = append(seeds, l.nodes[i-2].cluster.Addr())
	}
	network := "lab"
	if i > 3 {
		network = "" // it comes later, and has to find that out
	}
	public := l.owner.Public()
	name := fmt.Sprintf("node-%d", i)
	var err error
	n.cluster, err = cluster.New(cluster.Config{Key: identitytest.Key(l.t, name), Start: 1, Bind: addr, Network: netip.MustParsePrefix("127.0.0.0/8"), Seeds: seeds,
		Meta:   cluster.Meta{Hostname: name, SwarmPort: 6881, HTTPPort: filesPort, Network: network},
		Verify: func(message, signature []byte) error { return public.Verify(sign.Override, message, signature) }, Log: log})
	if err == nil {
		n.store = livestore.New(livestore.Config{Kind: livestore.LiveLayers(), Dir: n.dir, Network: livestore.On(n.cluster), Changed: n.Notify, Log: log})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	img := &image{manifest.Manifest{Name: "test", Arch: "amd64", Files: []manifest.FileInfo{{Name: manifest.Kernel}, {Name: manifest.Initramfs}}}}
	host, err := boothost.New(boothost.Config{Interface: net.Interface{Name: "lo", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}}, Address: netip.PrefixFrom(addr, 8),
		HTTPPort: filesPort, Mode: dhcp.External, Image: img, Log: log, Live: func(digest string) (*os.File, error) { return livestore.Open(n.dir, digest) }})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, part := range []func(context.Context) error{n.cluster.Run, n.store.Run, host.ServeFiles, following(n.cluster, n.Notify)} {
		parts.Go(func() {
			if err := part(ctx); err != nil {
				l.t.Errorf("node %d: %v", i, err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() { cancel(); parts.Wait() })
	l.t.Cleanup(n.stop)
	n.socket = serve(l.t, n)
	l.nodes = append(l.nodes, n)
	return n
}

// following is what tells followers of the status what the membership reports.
func following(c *cluster.Cluster, notify func()) func(context.Context) error {
	return func(ctx context.Context) error {
		changed, stop := c.Watch()
		defer stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				notify()
			}
		}
	}
}

func (n *netNode) MemberStatus() control.Status { return n.Status() }

func (n *netNode) Status() control.Status {
	s := control.Status{Network: n.cluster.Network(), Overrides: n.cluster.Overrides()}
	for _, m := range n.cluster.Members() {
		s.Members = append(s.Members, control.Member{ID: m.ID, Hostname: m.Meta.Hostname, HTTPPort: m.Meta.HTTPPort, State: control.MemberState(m.State), Live: m.Meta.Live.String()})
	}
	if state := n.store.State(); state.Version > 0 {
		s.Live = &control.Live{Version: state.Version, Digest: state.Pointer.Digest, Here: state.Here}
	}
	return s
}

func (*netNode) Open(context.Context, string) (io.ReadSeeker, error) { return nil, os.ErrNotExist }
func (*netNode) SetRoles(context.Context, []roles.Name) error        { return nil }
func (n *netNode) AddLayer(layer []byte) error                       { return n.store.Add(layer) }
func (n *netNode) PutOverride(o operator.Override) error {
	if o.Key == livelayer.Key {
		return n.store.Put(o)
	}
	return n.cluster.Put(o)
}
func (n *netNode) Layer(ctx context.Context, d livelayer.Digest) ([]byte, error) {
	return n.store.Get(ctx, d)
}

// until waits for changes of the node until something holds.
func (n *netNode) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	changed, stop := n.Watch()
	defer stop()
	late := time.After(3 * time.Minute)
	for !holds() {
		select {
		case <-changed:
		case <-late:
			t.Fatalf("never: %s; the status is %+v", what, n.Status())
		}
	}
}

// has waits until the node has the layer of another one, with the same bytes.
func (n *netNode) has(t *testing.T, of *netNode) {
	t.Helper()
	want := of.store.State()
	n.until(t, fmt.Sprintf("version %d is here", want.Version), func() bool { return n.store.State() == want })
	a, err := os.ReadFile(livestore.Path(n.dir, want.Pointer.Digest))
	b, err2 := os.ReadFile(livestore.Path(of.dir, want.Pointer.Digest))
	if err := errors.Join(err, err2); err != nil || !bytes.Equal(a, b) {
		t.Errorf("it has %d bytes, the other %d: %v", len(a), len(b), err)
	}
}

// viver runs a command about the network on a node, with the owner's key.
func (l *liveNet) viver(n *netNode, args ...string) (code int, out string) {
	l.t.Helper()
	code, out, errs := operate(l.t, l.t.TempDir(), append(args, "--socket", n.socket)...)
	return code, out + errs
}

// changes is viver for a command that has to succeed.
func (l *liveNet) changes(n *netNode, args ...string) (out string) {
	l.t.Helper()
	code, out := l.viver(n, append(args, "--key", l.key)...)
	if code != exitOK {
		l.t.Fatalf("%v: %d, %s", args, code, out)
	}
	return out
}

// webRune makes the folder of a rune.
func webRune(t *testing.T, text string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "web")
	for name, data := range map[string]string{"rune.toml": "name = \"web\"\ndescription = \"a test\"\n", "files/etc/web.conf": text} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What is added to one node is on all, also on one that comes later when the node that
// was told is dead; each change can be taken back.
func TestLiveChanges(t *testing.T) {
	t.Parallel()
	l := newLiveNet(t, 151)
	a, b, c := l.start(), l.start(), l.start()
	a.until(t, "all are members", func() bool { return len(a.cluster.Peers()) == 2 })

	if _, out := l.viver(a, "rune", "history"); !strings.Contains(out, errNothingLive.Error()) {
		t.Errorf("at first the history is %q", out)
	}
	begin := time.Now()
	out := l.changes(a, "rune", "add", webRune(t, "port 80\n"))
	t.Logf("viver rune add: %.1f s until three nodes had it\n%s", time.Since(begin).Seconds(), out)
	if !strings.Contains(out, "3 of 3 nodes have it") {
		t.Errorf("it said %q", out)
	}
	b.has(t, a)
	c.has(t, a)
	first := a.store.State()

	motd := filepath.Join(t.TempDir(), "motd")
	if err := os.WriteFile(motd, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.changes(b, "file", "put", motd, "/etc/motd", "--mode", "640")
	l.changes(c, "rune", "set", "web", "port=8080", "name=")
	l.changes(a, "rune", "remove", "time")
	layer, _ := l.layer(a)
	if got := fmt.Sprint(layer.Settings, layer.Off); got != "map[web:map[name: port:8080]] [time]" || !bytes.Contains(layer.Runes, []byte("hello")) || !bytes.Contains(layer.Runes, []byte("port 80")) {
		t.Errorf("the layer has %s and runes %q", got, layer.Runes)
	}
	_, out = l.viver(b, "rune", "history")
	if got := regexp.MustCompile(`(?m)^\d+ +\S+ \S+ +`).ReplaceAllString(out, ""); !strings.HasSuffix(got, "rune remove time\nrune set web port=8080 name=\nfile put /etc/motd\nrune add web\n") {
		t.Errorf("the history is %q", out)
	}

	// The node that was told first dies. The others go on, and one that comes later
	// gets the same.
	last := a.store.State()
	a.stop()
	d := l.start()
	d.has(t, b)
	if d.store.State() != last {
		t.Errorf("the new one has %+v, want %+v", d.store.State(), last)
	}
	b.until(t, "the dead one is known to be dead", func() bool { return len(b.cluster.Peers()) == 2 })
	// It gets earlier layers from the others, too.
	l.changes(d, "rune", "rollback", fmt.Sprint(first.Version))
	layer, pointer := l.layer(d)
	if pointer == first.Pointer || len(layer.Settings)+len(layer.Off) > 0 || bytes.Contains(layer.Runes, []byte("hello")) || !bytes.Contains(layer.Runes, []byte("port 80")) {
		t.Errorf("after the rollback it is %+v", layer)
	}
	l.changes(d, "rune", "rollback") // back to the one before
	if layer, _ = l.layer(d); layer.Off == nil || !bytes.Contains(layer.Runes, []byte("hello")) {
		t.Errorf("after the second rollback it is %+v", layer)
	}
	l.changes(d, "rune", "rollback", "0")
	if layer, _ = l.layer(d); layer.Off != nil || bytes.Contains(layer.Runes, []byte("web")) || len(layer.History) != 7 {
		t.Errorf("after the third rollback it is %+v", layer)
	}
	b.has(t, d)
	c.has(t, d)
}

// layer is what a node has.
func (l *liveNet) layer(n *netNode) (livelayer.Layer, livelayer.Pointer) {
	l.t.Helper()
	p := n.store.State().Pointer
	data, err := os.ReadFile(livestore.Path(n.dir, p.Digest))
	if err != nil {
		l.t.Fatal(err)
	}
	layer, err := livelayer.Decode(data)
	if err != nil {
		l.t.Fatal(err)
	}
	return layer, p
}

// What nodes could not use, or what the owner did not sign for this network now, changes
// nothing.
func TestRefusedLiveChanges(t *testing.T) {
	t.Parallel()
	l := newLiveNet(t, 152)
	a := l.start()
	stranger := filepath.Join(t.TempDir(), "other.key")
	if _, _, err := sign.OpenKey(stranger); err != nil {
		t.Fatal(err)
	}
	l.changes(a, "rune", "add", webRune(t, "one"))
	old := a.cluster.Overrides()[0]
	l.changes(a, "rune", "add", webRune(t, "two"))
	want := a.store.State()

	good, broken, template, large := webRune(t, "three"), webRune(t, ""), webRune(t, ""), webRune(t, "")
	for file, text := range map[string]string{
		filepath.Join(broken, "rune.toml"):             "name = \"web\"\ndescription = 7\n",
		filepath.Join(template, "files/etc/x.tmpl"):    "{{.NoSuchFact}}",
		filepath.Join(large, "files/etc/large"):        strings.Repeat("x", livelayer.MaxSize),
		filepath.Join(good, "..", "a file, no folder"): "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args string
		code int
		why  string
	}{
		{"rune add " + good + " --key " + stranger, exitFailed, "did not sign"},
		{"rune add " + good + " --key /none", exitFailed, "no such file"},
		{"rune add " + broken + " --key " + l.key, exitFailed, "rune.toml"},
		{"rune add " + template + " --key " + l.key, exitFailed, "NoSuchFact"},
		{"rune add " + large + " --key " + l.key, exitFailed, "may have"},
		{"rune add /none --key " + l.key, exitFailed, "no such file"},
		{"rune add " + good + " --to x --key " + l.key, exitUsage, "none of the others can be"},
		{"rune rollback 99 --key " + l.key, exitFailed, "not among the last 2"},
		{"rune rollback " + fmt.Sprint(want.Version) + " --key " + l.key, exitFailed, "in use"},
		{"rune rollback x --key " + l.key, exitUsage, "no version"},
		{"rune set web =x --key " + l.key, exitUsage, "KEY=VALUE"},
		{"file put " + l.key + " etc/motd --key " + l.key, exitFailed, "whole path"},
		{"file put " + good + " /etc/motd --key " + l.key, exitFailed, "want a file"},
		{"file put " + l.key + " /etc/motd --mode 888 --key " + l.key, exitUsage, "octal"},
		{"file remove /etc/motd --key " + l.key, exitFailed, "no file /etc/motd was put"},
	} {
		if code, out := l.viver(a, strings.Fields(test.args)...); code != test.code || !strings.Contains(out, test.why) {
			t.Errorf("%s: %d, %s", test.args, code, out)
		}
	}
	node := control.NewClient(a.socket)
	elsewhere := signed(operator.Override{Key: livelayer.Key, Value: old.Value, Sequence: 1 << 40}, &control.Status{Network: "other"}, l.owner)
	absent := signed(operator.Override{Key: livelayer.Key, Value: livelayer.PointTo([]byte("absent")).String(), Sequence: 1 << 40}, &control.Status{Network: "lab"}, l.owner)
	unsigned := absent
	unsigned.Value, unsigned.Signature = old.Value, nil
	for what, o := range map[string]operator.Override{"a replay": old, "of another network": elsewhere, "of an absent layer": absent, "unsigned": unsigned} {
		if err := node.PutOverride(t.Context(), o); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := node.AddLayer(t.Context(), []byte("nonsense")); err == nil {
		t.Error("nonsense is a layer")
	}
	if now := a.store.State(); now != want {
		t.Errorf("now %+v is used, want %+v", now, want)
	}
}

// A node is reached through ssh, with the owner's key on this computer.
func TestLiveThroughSSH(t *testing.T) {
	l := newLiveNet(t, 153)
	a := l.start()
	installSSH(t, `for word; do
	case $before in -L) local=${word%%:*} there=${word#*:} ;; esac
	before=$word
done
test "$there" = `+control.Socket+` || exit 1
case $word in
root@10.0.0.1) ;;
*) echo "ssh: connect to host $word: No route to host" >&2; exit 255 ;;
esac
ln -s `+a.socket+` "$local"
exec sleep 3600
`)
	code, out, errs := operate(t, t.TempDir(), "rune", "add", webRune(t, "one"), "--to", "10.0.0.1", "--key", l.key)
	if code != exitOK || !strings.Contains(out, "1 of 1 nodes have it") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, out, errs = operate(t, t.TempDir(), "rune", "history", "--to", "10.0.0.1", "-o", "json")
	if code != exitOK || !strings.Contains(out, `"what": "rune add web"`) {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, _, errs = operate(t, t.TempDir(), "rune", "history", "--to", "admin@10.0.0.2")
	if code != exitFailed || !strings.Contains(errs, "No route to host") || !strings.Contains(errs, "reach admin@10.0.0.2") {
		t.Errorf("%d, %s", code, errs)
	}
}
