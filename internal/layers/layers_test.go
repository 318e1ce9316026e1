package layers

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine"
	"viver.lan/internal/machine/machinetest"
	"viver.lan/internal/netbed/netbedtest"
)

func config(m *machinetest.Host) Config {
	return Config{Device: m.Path("/dev/nbd0"), Dir: m.Path("/run/viver/root"), Target: m.Path("/newroot")}
}

func TestAssemble(t *testing.T) {
	const (
		lower  = "mount /dev/nbd0 /run/viver/root/lower squashfs 0x7 "
		rw     = "mount viver-rw /run/viver/root/rw tmpfs 0x6 mode=0755,size=50%"
		memory = "mount viver-root /newroot overlay 0x0 lowerdir=/run/viver/root/lower,upperdir=/run/viver/root/rw/upper,workdir=/run/viver/root/rw/work"
		saved  = "mount viver-root /newroot overlay 0x0 lowerdir=/run/viver/root/lower,upperdir=/saved/u,workdir=/saved/w"
	)
	fail := func(words string) func(string) error {
		return func(call string) error {
			if strings.HasPrefix(call, "mount") && strings.Contains(call, words) {
				return unix.EINVAL
			}
			return nil
		}
	}
	for name, tt := range map[string]struct {
		change func(*Config)
		fail   func(string) error
		calls  []string
		root   Root
		err    string
	}{
		"memory": {calls: []string{lower, rw, memory}, root: Root{InMemory: true}},
		"saved data": {change: func(c *Config) { c.Upper, c.Work = "/saved/u", "/saved/w" },
			calls: []string{lower, saved}},
		"saved data that cannot": {change: func(c *Config) { c.Upper, c.Work = "/saved/u", "/saved/w" }, fail: fail("/saved/u"),
			calls: []string{lower, saved, rw, memory}, root: Root{InMemory: true, Note: "saved data in /saved/u is not used"}},
		"saved data of an odd name": {change: func(c *Config) { c.Upper, c.Work = "/sa:ved/u", "/saved/w" },
			calls: []string{lower, rw, memory}, root: Root{InMemory: true, Note: "a character with a meaning"}},
		"not a squashfs": {fail: fail("squashfs"), calls: []string{lower}, err: "invalid argument"},
		"no overlay": {fail: fail("overlay"), calls: []string{lower, rw, memory, "unmount /run/viver/root/rw 0x0", "unmount /run/viver/root/lower 0x0"},
			err: "invalid argument"},
		"size":      {change: func(c *Config) { c.Size = "2g" }, calls: []string{lower, strings.Replace(rw, "50%", "2g", 1), memory}, root: Root{InMemory: true}},
		"bad size":  {change: func(c *Config) { c.Size = "50%,mode=0777" }, err: `size "50%,mode=0777"`},
		"half":      {change: func(c *Config) { c.Upper = "/saved/u" }, err: "both"},
		"no device": {change: func(c *Config) { c.Device += "1" }, err: "the root disk is not attached"},
	} {
		t.Run(name, func(t *testing.T) {
			m := machinetest.New(t, map[string]string{"/dev/nbd0": ""})
			m.Fail = tt.fail
			c := config(m)
			if tt.change != nil {
				tt.change(&c)
			}
			root, err := Assemble(m, c)
			if calls := m.Calls(); !slices.Equal(calls, tt.calls) {
				t.Errorf("calls\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(tt.calls, "\n"))
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if root.InMemory != tt.root.InMemory || !strings.Contains(root.Note, tt.root.Note) || root.Note != "" && tt.root.Note == "" {
				t.Errorf("root %+v, want %+v", root, tt.root)
			}
		})
	}
}

func TestCheckSize(t *testing.T) {
	for s, ok := range map[string]bool{"50%": true, "1%": true, "100%": true, "512m": true, "2G": true, "1048576": true,
		"": false, "0": false, "0%": false, "101%": false, "50": true, "-1": false, "50%x": false, "1t": false, "5 0%": false} {
		if err := CheckSize(s); (err == nil) != ok {
			t.Errorf("CheckSize(%q) = %v", s, err)
		}
	}
}

// bindSquashfs is the real machine, except that a directory is mounted where
// the image would be: no namespace may mount a block device.
type bindSquashfs struct{ machine.Host }

func (b bindSquashfs) Mount(source, target, fstype string, flags uintptr, data string) error {
	if fstype == "squashfs" {
		return b.Host.Mount(source, target, "", unix.MS_BIND, "")
	}
	return b.Host.Mount(source, target, fstype, flags, data)
}

// TestNetnsOverlay assembles a real overlay in user and mount namespaces.
func TestNetnsOverlay(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(image, "etc/hostname"), "image")
	write(filepath.Join(image, "etc/motd"), "hello")
	write(filepath.Join(image, "usr/bin/podman"), "")
	write(filepath.Join(image, "usr/sbin/dockerd"), "")
	write(filepath.Join(image, "var/lib/docker/kept"), "by the owner")
	t.Cleanup(func() {
		for _, target := range []string{"newroot/var/lib/containers/merged", "newroot/var/lib/containers", "newroot", "newroot2", "run/rw", "run2/rw", "run/lower", "run2/lower"} {
			_ = unix.Unmount(filepath.Join(dir, target), unix.MNT_DETACH)
		}
	})
	m := bindSquashfs{}
	c := Config{Device: image, Dir: filepath.Join(dir, "run"), Target: filepath.Join(dir, "newroot"), Size: "16m"}
	root, err := Assemble(m, c)
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(c.Target, "etc/hostname"), "node")
	write(filepath.Join(c.Target, "new"), "file")
	if err := os.Remove(filepath.Join(c.Target, "etc/motd")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(c.Target, "etc/hostname"):   "node",
		filepath.Join(image, "etc/hostname"):      "image",
		filepath.Join(root.Lower, "etc/motd"):     "hello",
		filepath.Join(c.Dir, "rw/upper/new"):      "file",
		filepath.Join(c.Dir, "rw/upper/etc/motd"): "", // a whiteout
	} {
		text, err := os.ReadFile(path)
		if string(text) != want {
			t.Errorf("%s holds %q (%v), want %q", path, text, err, want)
		}
	}
	if info, err := os.Stat(c.Target); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode of the root: %v %v", info.Mode(), err)
	}
	testStores(t, m, root)
	err = os.WriteFile(filepath.Join(c.Target, "big"), make([]byte, 20<<20), 0o644)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing more than the limit: %v, want ENOSPC", err)
	}
	// A disk whose writable layer the kernel refuses: the boot goes on.
	c2 := c
	c2.Dir, c2.Target = filepath.Join(dir, "run2"), filepath.Join(dir, "newroot2")
	c2.Upper, c2.Work = filepath.Join(dir, "nowhere/u"), filepath.Join(dir, "nowhere/w")
	root, err = Assemble(m, c2)
	if err != nil || !root.InMemory || !strings.Contains(root.Note, "nowhere") {
		t.Errorf("Assemble = %+v, %v", root, err)
	}
}

// testStores does in the engine's place what a container engine does for each
// container: it mounts an overlay whose upper layer it has made there.
func testStores(t *testing.T, m OS, root *Root) {
	t.Helper()
	bound, err := root.BindStores(m)
	if !slices.Equal(bound, []string{"/var/lib/containers"}) || err == nil || !strings.Contains(err.Error(), "/var/lib/docker: it holds something already") {
		t.Errorf("bound %q, %v", bound, err)
	}
	store := filepath.Join(root.target, "var/lib/containers")
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(store, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := overlay(&stack{os: m}, filepath.Join(store, "merged"), filepath.Join(store, "lower"), filepath.Join(store, "upper"), filepath.Join(store, "work")); err != nil {
		t.Errorf("no container could run: %v", err)
	}
	if err := os.WriteFile(filepath.Join(store, "merged/file"), nil, 0o644); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root.writable, "stores/containers/upper/file")); err != nil {
		t.Errorf("what a container writes is elsewhere: %v", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(store, &fs); err != nil || fs.Flags&(unix.ST_NOSUID|unix.ST_NODEV) != 0 {
		t.Errorf("set-user-ID programs in containers: flags %#x, %v", fs.Flags, err)
	}
}

// TestStoresStayInside looks at roots in which a link stands in the way.
func TestStoresStayInside(t *testing.T) {
	for _, link := range []string{"/elsewhere", "../../elsewhere"} {
		m := machinetest.New(t, map[string]string{"/newroot/usr/bin/podman": "", "/newroot/var/lib/": "", "/elsewhere/": "", "/rw/": "", "/newroot/var/lib/containers": "-> " + link})
		root := &Root{target: m.Path("/newroot"), writable: m.Path("/rw")}
		bound, err := root.BindStores(m)
		if len(bound) != 0 || err == nil || len(m.Calls()) != 0 {
			t.Errorf("%s: bound %q, %v, calls %q", link, bound, err, m.Calls())
		}
	}
}
