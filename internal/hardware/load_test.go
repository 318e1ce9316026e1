package hardware

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine/machinetest"
)

const lib = "/lib/modules/6.1/"

// virtual is a machine whose network card sits behind a bus that has no driver
// at first.
func virtual(t *testing.T) *machinetest.Host {
	m := machinetest.New(t, map[string]string{
		"/proc/sys/kernel/osrelease":                 "6.1\n",
		"/sys/bus/pci/devices/0000:00:03.0/modalias": "pci:v00001AF4d00001000sv0sd0bc02sc00i00\n",
		"/sys/bus/acpi/devices/PNP0501:00/modalias":  "acpi:PNP0501:\n",
		"/sys/bus/platform/devices/pcspkr/modalias":  "platform:pcspkr\n",
		"/sys/module/printk/parameters/":             "",
		lib + "modules.alias":                        "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000001v* virtio-net\nalias platform:pcspkr pcspkr\nalias iso9660 isofs\n",
		lib + "modules.dep":                          "kernel/virtio-pci.ko: kernel/virtio_ring.ko kernel/virtio.ko\nkernel/virtio_ring.ko: kernel/virtio.ko\nkernel/virtio.ko:\nkernel/virtio_net.ko: kernel/failover.ko\nkernel/failover.ko:\nkernel/pcspkr.ko:\nkernel/isofs.ko:\n",
		lib + "modules.builtin":                      "kernel/fs/overlayfs/overlay.ko\n",
		lib + "modules.builtin.modinfo":              "overlay.alias=fs-overlay\x00squashfs.alias=fs-squashfs\x00",
		lib + "modules.softdep":                      "",
	})
	for _, name := range []string{"virtio-pci", "virtio_ring", "virtio", "virtio_net", "failover", "pcspkr", "isofs"} {
		m.Put(t, lib+"kernel/"+name+".ko", "")
	}
	return m
}

func newLoader(t *testing.T, m *machinetest.Host, o Options) *Loader {
	t.Helper()
	tree, err := OpenTree(m.Root, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	return NewLoader(m, tree, o)
}

// A driver that waits for its devices holds up no other module; this one waits for it.
func TestAModuleThatWaitsHoldsUpNoOther(t *testing.T) {
	m := virtual(t)
	begun, other := make(chan struct{}), make(chan struct{})
	m.Fail = func(call string) error {
		switch {
		case strings.Contains(call, "virtio-pci.ko"):
			close(begun)
			<-other
		case strings.Contains(call, "isofs.ko"):
			close(other)
		}
		return nil
	}
	l := newLoader(t, m, Options{})
	plugged := make(chan Report, 1)
	go func() { plugged <- l.Coldplug(t.Context()) }()
	<-begun
	if r, err := l.Load(t.Context(), "iso9660"); err != nil || !slices.Equal(r.Loaded, []string{"isofs"}) {
		t.Errorf("Load = %+v, %v", r, err)
	}
	if r := <-plugged; !slices.Contains(r.Loaded, "virtio_pci") || len(r.Failed) != 0 {
		t.Errorf("Coldplug = %+v", r)
	}
}

func TestColdplugReachesTheFixpoint(t *testing.T) {
	m := virtual(t)
	m.Fail = func(call string) error {
		if strings.Contains(call, "virtio-pci.ko") {
			m.Put(t, "/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n")
		}
		return nil
	}
	l := newLoader(t, m, Options{Blacklist: []string{"pcspkr"}, Params: map[string]string{"virtio-net": "napi_tx=1"}})
	r := l.Coldplug(t.Context())
	want := []string{"virtio", "virtio_ring", "virtio_pci", "failover", "virtio_net"}
	if !slices.Equal(r.Loaded, want) || r.Passes != 2 || len(r.Failed) != 0 {
		t.Errorf("Coldplug = %+v, want %q in 2 passes", r, want)
	}
	if got := m.Calls(); got[len(got)-1] != "insert /lib/modules/6.1/kernel/virtio_net.ko napi_tx=1" {
		t.Errorf("calls: %q", got)
	}
	if r := l.Coldplug(t.Context()); r.Devices != 0 || len(r.Loaded) != 0 {
		t.Errorf("a second Coldplug found news: %+v", r)
	}
}

func TestFailureIsASentence(t *testing.T) {
	m := virtual(t)
	m.Fail = func(call string) error {
		if strings.Contains(call, "virtio_ring") {
			return unix.EKEYREJECTED
		}
		return nil
	}
	l := newLoader(t, m, Options{})
	r := l.Coldplug(t.Context())
	if len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Error(), "virtio_ring") || !strings.Contains(r.Failed[0].Error(), "Secure Boot") {
		t.Errorf("Failed = %v", r.Failed)
	}
	if !slices.Contains(r.Loaded, "pcspkr") || slices.Contains(r.Loaded, "virtio_pci") {
		t.Errorf("Loaded = %q: one module's failure must stop its dependants and nobody else", r.Loaded)
	}
	_, err := l.Load(t.Context(), "virtio-pci", "isofs")
	if !errors.Is(err, unix.EKEYREJECTED) || !strings.Contains(err.Error(), "virtio_pci, which needs virtio_ring") {
		t.Errorf("Load = %v", err)
	}
}

// Files of modules that come later are waited for without a fuss, and then loaded
// in order, with what their devices reveal.
func TestModulesThatComeLater(t *testing.T) {
	m := virtual(t)
	late := []string{"virtio_ring", "virtio_net", "isofs"}
	for _, name := range late {
		if err := os.Remove(m.Path(lib + "kernel/" + name + ".ko")); err != nil {
			t.Fatal(err)
		}
	}
	m.Fail = func(call string) error {
		if strings.Contains(call, "virtio-pci.ko") {
			m.Put(t, "/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n")
		}
		return nil
	}
	l := newLoader(t, m, Options{})
	r := l.Coldplug(t.Context())
	if slices.Sort(r.Loaded); !slices.Equal(r.Loaded, []string{"pcspkr", "virtio"}) || len(r.Failed) != 0 || !strings.Contains(r.String(), "1 modules are not here yet") {
		t.Errorf("Coldplug = %s, loaded %v, failed %v", r, r.Loaded, r.Failed)
	}
	if _, err := l.Load(t.Context(), "isofs"); !errors.Is(err, ErrNotHere) {
		t.Errorf("Load(isofs) = %v", err)
	}
	if got := l.Missing(); !slices.Equal(got, []string{"virtio_pci", "isofs"}) {
		t.Errorf("Missing = %q", got)
	}
	for _, name := range late[:2] {
		m.Put(t, lib+"kernel/"+name+".ko", "")
	}
	r = l.Resume(t.Context())
	if want := []string{"virtio_ring", "virtio_pci", "failover", "virtio_net"}; !slices.Equal(r.Loaded, want) || len(r.Failed) != 0 {
		t.Errorf("Resume loaded %q, failed %v; want %q", r.Loaded, r.Failed, want)
	}
	if got := l.Missing(); !slices.Equal(got, []string{"isofs"}) || !slices.Equal(got, r.ToCome) {
		t.Errorf("Missing = %q, to come %q", got, r.ToCome)
	}
}

// Modules that are left for later are loaded by Finish, with what their devices
// reveal; after it none is left.
func TestModulesThatAreLeftForLater(t *testing.T) {
	m := virtual(t)
	m.Fail = func(call string) error {
		if strings.Contains(call, "virtio-pci.ko") {
			m.Put(t, "/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n")
		}
		return nil
	}
	l := newLoader(t, m, Options{Later: func(file string) bool { return file == "kernel/virtio-pci.ko" || file == "kernel/virtio_net.ko" }})
	if r := l.Coldplug(t.Context()); !slices.Equal(r.Loaded, []string{"pcspkr"}) {
		t.Errorf("Coldplug loaded %q, want what is not left for later", r.Loaded)
	}
	if got := l.Missing(); got != nil {
		t.Errorf("%q are missing, but only left for later", got)
	}
	r := l.Finish(t.Context())
	if want := []string{"virtio", "virtio_ring", "virtio_pci", "failover", "virtio_net"}; !slices.Equal(r.Loaded, want) || len(r.Failed) != 0 {
		t.Errorf("Finish loaded %q, failed %v; want %q", r.Loaded, r.Failed, want)
	}
	if r := l.Finish(t.Context()); r.Loaded != nil {
		t.Errorf("a second Finish loaded %q", r.Loaded)
	}
	if age := time.Since(l.Newest()); age < 0 || age > time.Hour {
		t.Errorf("the newest is %s old", age)
	}
}

// For one device one table is read, and the answer is OpenTree's.
func TestFindDriver(t *testing.T) {
	m := virtual(t)
	tree, err := OpenTree(m.Root, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, modalias := range []string{"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "virtio:d00000001v00001AF4", "pci:v0000FFFFd00000001", "virtio", ""} {
		got, err := FindDriver(m.Root, "6.1", modalias)
		want := ""
		if found := tree.Match(modalias); len(found) > 0 {
			want = found[0]
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", modalias, got, err, want)
		}
	}
	if _, err := FindDriver(m.Root, "9.9", "pci:x"); err == nil {
		t.Error("a kernel without modules has a driver")
	}
}

func TestLoadByName(t *testing.T) {
	m := virtual(t)
	l := newLoader(t, m, Options{Blacklist: []string{"isofs"}})
	r, err := l.Load(t.Context(), "iso9660", "overlay", "fs-squashfs", "printk")
	if err != nil || !slices.Equal(r.Loaded, []string{"isofs"}) {
		t.Errorf("Load = %+v, %v; built-in names need no file and an explicit name beats the blacklist", r, err)
	}
	_, err = l.Load(t.Context(), "nbd", "isofs")
	if !errors.Is(err, ErrNoModule) || !strings.Contains(err.Error(), "nbd") || !strings.Contains(err.Error(), "kernel 6.1") {
		t.Errorf("Load(nbd) = %v", err)
	}
}

func TestCompressedModules(t *testing.T) {
	plain := bytes.Repeat([]byte("module "), 100)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write(plain)
	_ = w.Close()
	files := map[string][]byte{"a.ko.gz": gz.Bytes()}
	for name, argv := range map[string][]string{"b.ko.xz": {"xz", "--check=crc32", "-c"}, "c.ko.zst": {"zstd", "-q", "-c"}} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s is needed to make test data: %v", argv[0], err)
		}
		files[name] = out
	}
	m := machinetest.New(t, map[string]string{lib + "modules.dep": "a.ko.gz:\nb.ko.xz:\nc.ko.zst:\nd.ko.lzh:\ne.ko.gz:\n"})
	for name, data := range files {
		m.Put(t, lib+name, string(data))
	}
	m.Put(t, lib+"d.ko.lzh", "?")
	m.Put(t, lib+"e.ko.gz", gz.String()[:30])
	l := newLoader(t, m, Options{})
	if _, err := l.Load(t.Context(), "a", "b", "c"); err != nil {
		t.Error(err)
	}
	if got, want := m.Calls(), slices.Repeat([]string{"insert 700 bytes "}, 3); !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	if _, err := l.Load(t.Context(), "d"); err == nil || !strings.Contains(err.Error(), "unknown compression") {
		t.Errorf("Load(d) = %v", err)
	}
	if _, err := l.Load(t.Context(), "e"); err == nil {
		t.Error("a truncated module was loaded")
	}
}

func TestModprobe(t *testing.T) {
	for _, tt := range []struct {
		args  string
		calls []string
		err   string
	}{
		{"-q -- isofs", []string{"insert /lib/modules/6.1/kernel/isofs.ko "}, ""},
		{"isofs a=1 b=2", []string{"insert /lib/modules/6.1/kernel/isofs.ko a=1 b=2"}, ""},
		{"-a isofs pcspkr", []string{"insert /lib/modules/6.1/kernel/isofs.ko ", "insert /lib/modules/6.1/kernel/pcspkr.ko "}, ""},
		{"-q -- nls_cp437", nil, "no such module"},
		{"-r isofs", nil, "unknown option -r"},
		{"-q --", nil, "none was named"},
	} {
		m := virtual(t)
		err := Modprobe(t.Context(), m, strings.Fields(tt.args))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("modprobe %s: error %v, want %q", tt.args, err, tt.err)
		}
		if got := m.Calls(); !slices.Equal(got, tt.calls) {
			t.Errorf("modprobe %s: %q, want %q", tt.args, got, tt.calls)
		}
	}
}

// Of the kernel's messages those wake that a device with a modalias causes, and any
// that was lost.
func TestEventsThatMatter(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	e := &Events{os.NewFile(uintptr(fds[0]), "uevents")}
	defer e.Close()
	send := func(message string) {
		if _, err := unix.Write(fds[1], []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	woken := make(chan error, 1)
	go func() { woken <- e.Wait(t.Context(), time.Hour) }()
	send("change@/devices/virtual/block/nbd0\x00ACTION=change\x00DEVNAME=nbd0")
	send("add@/module/nbd\x00ACTION=add")
	select {
	case err := <-woken:
		t.Errorf("woken by a message of no device that needs a driver: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	send("add@/devices/pci0000:00/usb1/1-1\x00ACTION=add\x00MODALIAS=usb:v1D6B")
	if err := <-woken; err != nil {
		t.Error(err)
	}
	if err := e.Wait(t.Context(), time.Millisecond); err != nil {
		t.Errorf("after its time: %v", err)
	}
}

func TestWatchServesLateDevices(t *testing.T) {
	m := virtual(t)
	l := newLoader(t, m, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports := 0
	err := l.Watch(ctx, func(r Report) {
		if reports++; reports == 1 {
			m.Put(t, "/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n")
			return
		}
		if !slices.Contains(r.Loaded, "virtio_net") {
			t.Errorf("second report %+v", r)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || reports != 2 {
		t.Errorf("Watch = %v after %d reports", err, reports)
	}
}

// An SD card has no file modalias; its event, which the kernel keeps, has one.
func TestCardsSayWhatTheyAreInTheirEvent(t *testing.T) {
	m := virtual(t)
	m.Put(t, lib+"modules.alias", "alias mmc:block pcspkr\n")
	m.Put(t, "/sys/bus/mmc/devices/mmc0:4567/uevent", "DRIVER=mmcblk\nMMC_TYPE=SD\nMODALIAS=mmc:block\n")
	if r := newLoader(t, m, Options{}).Coldplug(t.Context()); !slices.Equal(r.Loaded, []string{"pcspkr"}) {
		t.Errorf("loaded %q, want the driver for cards", r.Loaded)
	}
}
