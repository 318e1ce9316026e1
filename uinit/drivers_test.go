package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"viver.lan/internal/hardware"
	"viver.lan/internal/machine/machinetest"
	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
)

// The drivers come from whichever node the boot host names. When that one is dead
// or lies, the boot host is asked for its own; when those are wrong too, nothing is
// taken and a sentence says why.
func TestFetchDrivers(t *testing.T) {
	data := bytes.Repeat([]byte("driver "), 1000)
	file := manifest.FileInfo{Name: manifest.Drivers, Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	tampered := bytes.Clone(data)
	tampered[3] ^= 1
	serve := func(data []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/"+manifest.Drivers) {
				t.Errorf("asked for %s", r.URL.Path)
			}
			_, _ = w.Write(data)
		}
	}
	peer := func(t *testing.T, data []byte) string {
		s := httptest.NewServer(serve(data))
		t.Cleanup(s.Close)
		return s.URL
	}
	dead := httptest.NewServer(nil)
	dead.Close()
	for _, tt := range []struct {
		name  string
		peer  string
		own   []byte // what the boot host has itself; nil: nothing
		err   string
		asked int // how often the boot host was
	}{
		{"from a peer", peer(t, data), nil, "", 1},
		{"from the boot host", "", data, "", 1},
		{"the peer is dead", dead.URL, data, "", 2},
		{"the peer lies", peer(t, tampered), data, "", 2},
		{"the peer has half of it", peer(t, data[:100]), data, "", 2},
		{"all lie", peer(t, tampered), tampered, "its SHA-256 is", 2},
		{"the boot host lies", "", tampered, "the signed manifest says", 2},
		{"nobody has it", "", nil, "no such file", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				switch {
				case tt.peer != "" && r.URL.RawQuery != manifest.NoRedirect:
					http.Redirect(w, r, tt.peer+r.URL.Path+"?"+manifest.NoRedirect, http.StatusFound)
				case tt.own == nil:
					http.NotFound(w, r)
				default:
					serve(tt.own)(w, r)
				}
			}))
			defer host.Close()
			n := newNode()
			n.boot.Host = netip.MustParseAddrPort(strings.TrimPrefix(host.URL, "http://"))
			n.image = &manifest.Manifest{Files: []manifest.FileInfo{file}}
			got, err := n.fetchDrivers(t.Context(), file)
			if tt.err == "" && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || got != nil) {
				t.Errorf("%d bytes, %v; want %q", len(got), err, tt.err)
			}
			if lie := strings.Contains(tt.name, "lie") && tt.err != ""; errors.Is(err, errRefused) != lie {
				t.Errorf("%v: refused, want %v", err, lie)
			}
			if asked != tt.asked {
				t.Errorf("the boot host was asked %d times, want %d", asked, tt.asked)
			}
		})
	}
}

// Drivers are fetched for what devices and disks ask for and the initramfs has not,
// and else not.
func TestMissingDrivers(t *testing.T) {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("mkfs.ext4 is not installed")
	}
	fat := filepath.Join(t.TempDir(), "fat")
	if out, err := exec.Command("mkfs.vfat", "-C", fat, "16384").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.vfat: %v\n%s", err, out)
	}
	disk, hangs := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "hangs")
	if err := unix.Mkfifo(hangs, 0o600); err != nil { // nobody writes to it
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", disk, "16M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"no disk", map[string]string{"/sys/class/block/": ""}, nil},
		{"a file system", map[string]string{"/sys/class/block/sda/size": "32768\n", "/dev/sda": "-> " + disk}, []string{"ext4"}},
		{"its driver is there", map[string]string{"/sys/class/block/sda/size": "32768\n", "/dev/sda": "-> " + disk, "/sys/module/ext4/": ""}, nil},
		{"FAT is there, and not its tables", map[string]string{"/sys/class/block/sda/size": "32768\n", "/dev/sda": "-> " + fat, "/sys/module/vfat/": ""}, []string{"nls_iso8859_1"}},
		{"beside a controller that finds no drive", map[string]string{"/sys/class/block/sda/size": "32768\n", "/dev/sda": "-> " + disk, "/sys/class/nvme/nvme0/state": "connecting\n"}, []string{"ext4"}},
		{"a disk that does not answer", map[string]string{"/sys/class/block/sda/size": "32768\n", "/dev/sda": "-> " + hangs}, []string{"whatever is on sda, which does not answer yet"}},
		{"a rare controller", map[string]string{"/sys/class/block/": "", "/sys/bus/pci/devices/0/modalias": "pci:v1000\n"}, []string{"megaraid_sas"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// In a bubble no time passes while an open hangs: that case ends by its context.
			if strings.Contains(tt.name, "not answer") {
				checkMissing(t, 100*time.Millisecond, tt.files, tt.want)
				return
			}
			synctest.Test(t, func(t *testing.T) { checkMissing(t, time.Hour, tt.files, tt.want) })
		})
	}
}

func checkMissing(t *testing.T, limit time.Duration, files map[string]string, want []string) {
	m := machinetest.New(t, files)
	m.Put(t, "/lib/modules/6.1/modules.dep", "kernel/fs/ext4/ext4.ko:\nkernel/drivers/scsi/megaraid_sas.ko:\nkernel/fs/nls/nls_iso8859_1.ko:\n")
	m.Put(t, "/lib/modules/6.1/modules.alias", "alias pci:v1000* megaraid_sas\n")
	tree, err := hardware.OpenTree(m.Root, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode()
	n.host.Root, n.settings.UseDisks, n.image = m.Root, true, new(manifest.Manifest)
	n.modules = hardware.NewLoader(m, tree, hardware.Options{})
	n.modules.Coldplug(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	got, err := n.missingDrivers(ctx)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("missing: %q, %v; want %q", got, err, want)
	}
	if detail, err := n.drivers(ctx); err != nil || strings.HasPrefix(detail, "not fetched") != (want == nil) {
		t.Errorf("the stage says %q, %v", detail, err)
	}
}

// A second network card gets its driver from the file of which the boot loader took what
// the first one needs, with disks in use or not. Images of earlier versions have none.
func TestDriversOfAnotherCard(t *testing.T) {
	const driver = "lib/modules/6.1/kernel/drivers/net/e1000.ko"
	table, archives := nicsFile(t, driver)
	data := slices.Concat(table, archives)
	spoiled := bytes.Clone(data)
	spoiled[len(spoiled)-1] ^= 1
	for _, tt := range []struct {
		name           string
		useDisks, knew bool // that the table came with the initramfs
		sent           []byte
		detail, err    string
	}{
		{"disks are in use", true, true, data, "1 files fetched", ""},
		{"no disks are", false, true, data, "1 files fetched", ""},
		{"an image of before", true, false, data, "no other drivers", ""},
		{"what comes is damaged", true, true, spoiled, "", "refused: nics.img"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machinetest.New(t, map[string]string{
				"/sys/class/block/": "", "/sys/bus/pci/devices/0/modalias": "pci:v8086\n", "/proc/sys/kernel/osrelease": "6.1\n",
				"/lib/modules/6.1/modules.dep":   "kernel/drivers/net/e1000.ko:\n",
				"/lib/modules/6.1/modules.alias": "alias pci:v8086* e1000\n",
			})
			if tt.knew {
				m.Put(t, "/"+nics.TableFile, `{"archives":[{"size":1,"modules":["e1000"]}]}`)
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(tt.sent) }))
			defer server.Close()
			tree, err := hardware.OpenTree(m.Root, "6.1")
			if err != nil {
				t.Fatal(err)
			}
			n := newNode()
			n.boot.Host = netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))
			n.host.Root, n.settings.UseDisks = m.Root, tt.useDisks
			n.image = &manifest.Manifest{Files: []manifest.FileInfo{{Name: manifest.NICs, Size: int64(len(data)), SHA256: sha256.Sum256(data)}}}
			n.modules = hardware.NewLoader(m, tree, hardware.Options{})
			n.modules.Coldplug(t.Context())
			detail, err := n.drivers(t.Context())
			if !strings.Contains(detail, tt.detail) || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v; want %q, %q", detail, err, tt.detail, tt.err)
			}
			loaded := slices.ContainsFunc(m.Calls(), func(call string) bool { return strings.HasPrefix(call, "insert /"+driver) })
			if want := tt.err == "" && tt.knew; loaded != want {
				t.Errorf("loaded %v, want %v: %q", loaded, want, m.Calls())
			}
		})
	}
}

// nicsFile is a file of network drivers with one module.
func nicsFile(t *testing.T, module string) (table, archives []byte) {
	t.Helper()
	archive := func(name, text string) []byte {
		var b bytes.Buffer
		w := cpio.Newc.Writer(&b)
		if err := errors.Join(cpio.WriteRecords(w, []cpio.Record{cpio.StaticFile(name, text, 0o644)}), cpio.WriteTrailer(w)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	archives = z.EncodeAll(archive(module, "a module"), nil)
	text, err := (&nics.Table{Archives: []nics.Archive{{Size: int64(len(archives)), Modules: []string{"e1000"}}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return archive(nics.TableFile, string(text)), archives
}
