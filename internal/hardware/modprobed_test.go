package hardware

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// confTree is the tree of kmodTree with files of modprobe.d.
func confTree(t *testing.T) (dir string, tree *Tree) {
	t.Helper()
	dir = kmodTree(t)
	write(t, dir, map[string]string{
		"etc/modprobe.d/20-late.conf":  "# why\nblacklist crc32c-intel\noptions e1000 debug=16\nalias my-card e1000\nsoftdep acme pre: isofs\n",
		"lib/modprobe.d/10-first.conf": "options e1000 RxDescriptors=80 \\\n  copybreak=0\ninstall isofs /bin/echo hello\ninstall everything /bin/false\n",
		"lib/modprobe.d/hidden.conf":   "blacklist e1000\n",
		"etc/modprobe.d/hidden.conf":   "",
		"etc/modprobe.d/README":        "blacklist e1000\n",
	})
	tree, err := OpenTree(dir, testRelease)
	if err != nil {
		t.Fatal(err)
	}
	return dir, tree
}

func TestModprobeD(t *testing.T) {
	_, tree := confTree(t)
	c := tree.conf
	if !c.blacklist["crc32c_intel"] || c.blacklist["e1000"] || len(c.blacklist) != 1 {
		t.Errorf("the blacklist is %v", c.blacklist)
	}
	if got, want := c.params["e1000"], "RxDescriptors=80 copybreak=0 debug=16"; got != want {
		t.Errorf("e1000 gets %q, want %q", got, want)
	}
	if err := c.refused("everything"); err == nil || !strings.Contains(err.Error(), "install everything /bin/false") || c.refused("isofs") != nil {
		t.Errorf("refused: %v, %v", err, c.refused("isofs"))
	}
	if names, err := tree.lookup("my_card"); err != nil || len(names) != 1 || names[0] != "e1000" {
		t.Errorf("my-card is %q, %v", names, err)
	}
	if order := tree.order("acme"); len(order) != 2 || order[0].name != "isofs" {
		t.Errorf("acme is loaded in the order %v", order)
	}
}

// modprobe says the same of a module's parameters.
func TestParametersJudgedByModprobe(t *testing.T) {
	dir, tree := confTree(t)
	out, err := exec.Command(tool(t, "modprobe"), "-d", dir, "-S", testRelease, "-C", filepath.Join(dir, "lib/modprobe.d"), "--show-depends", "e1000").CombinedOutput()
	if err != nil {
		t.Fatalf("modprobe: %v\n%s", err, out)
	}
	// Of one directory, which is all that modprobe takes by its option.
	words := strings.Fields(string(out))
	want := strings.Join(words[2:], " ")
	if got := strings.TrimSuffix(tree.conf.params["e1000"], " debug=16"); got != want || want == "" {
		t.Errorf("e1000 gets %q, modprobe says %q", got, want)
	}
}

// A device gets no module of the blacklist, and none that is switched off; parameters of
// the caller come last.
func TestLoaderFollowsModprobeD(t *testing.T) {
	m := virtual(t)
	m.Put(t, "/etc/modprobe.d/a.conf", "blacklist pcspkr\ninstall pcspkr /bin/false\ninstall isofs /bin/false\nblacklist usb-storage\noptions virtio-net csum=0\n")
	l := newLoader(t, m, Options{Params: map[string]string{"virtio_net": "gso=0"}})
	m.Put(t, "/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n")
	r := l.Coldplug(t.Context())
	if got := strings.Join(r.Loaded, " "); got != "virtio virtio_ring virtio_pci failover virtio_net" {
		t.Errorf("loaded %q", got)
	}
	if calls := strings.Join(m.Calls(), "\n"); !strings.Contains(calls, "csum=0 gso=0") {
		t.Errorf("no module got the parameters: %s", calls)
	}
	if _, err := l.Load(t.Context(), "pcspkr"); err == nil || !strings.Contains(err.Error(), "switches it off") {
		t.Errorf("a module that is switched off: %v", err)
	}
	if l.tree.conf.blacklist["usb_storage"] {
		t.Error("no device gets what reads a stick")
	}
	if r, err := l.Load(t.Context(), "isofs"); err != nil || !slices.Contains(r.Loaded, "isofs") {
		t.Errorf("a module without which no medium is read: %v, %v", r, err)
	}
}
