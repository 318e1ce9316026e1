package scenarios

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/bootprofile"
	"viver.lan/internal/imagebuild"
	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
	"viver.lan/internal/squashmap"
	"viver.lan/qemu-tests/harness"
)

// classes are what each file may hold modules of, below kernel/: the initramfs what
// stands between any PC and its wired network, its keyboard and a common disk, but for
// the drivers of network cards, which are in a file of their own; the last what stands
// between it and other disks and their file systems.
var classes = map[string]*regexp.Regexp{
	manifest.Initramfs: regexp.MustCompile(`^(arch|block|crypto|lib|net/core|net/packet|` +
		`drivers/(ata/(lib)?a(hci|ta)\.|block/(loop|nbd|virtio_blk)\.|cdrom|char|dca|hid|hv|i2c|input|misc|mmc/core|nvme|pci|pcmcia|` +
		`scsi/(scsi_mod|scsi_common|s[dr]_mod|virtio_scsi)\.|usb/(common|core|host|misc|storage/(uas|usb-storage)\.)|virtio)|` +
		`drivers/net/(hyperv|vmxnet3|[^/]*$)|` +
		`fs/(overlayfs|squashfs))`),
	manifest.NICs: regexp.MustCompile(`^(lib/crc8|net/(core|psample|tls|xfrm)|drivers/(dca|i2c|pcmcia|ssb)|drivers/net/(ethernet|mdio|pcs|phy|usb|[^/]*$))`),
	manifest.Drivers: regexp.MustCompile(`^(arch|block|crypto|lib|` +
		`drivers/(ata|block|cdrom|char|message|misc|mmc|nvme|pci|scsi|usb/storage|virtio)|` +
		`fs/(btrfs|configfs|efivarfs|exfat|ext4|fat|isofs|jbd2|nls|ntfs3|udf|xfs|[^/]*$))`),
}

// Every machine fetches the initramfs with what its firmware has for a network, with it
// what its card needs or all there is for cards, and the drivers for disks once it
// runs. None holds anything of another class, or what another one holds; packed they are
// less than three tenths of what they hold: with a weak compressor, or modules that are
// compressed inside, it is more.
func TestInitramfsIsSmall(t *testing.T) {
	for _, image := range []string{"tiny", "debian"} {
		in := map[string]string{}
		for name, fit := range classes {
			packed, plain := unpack(t, out(t, image, name))
			// In the archive a name ends with a NUL, in depmod's tables it does not.
			modules := regexp.MustCompile(`lib/modules/[^/\x00]+/kernel/([^\x00\n ]+\.ko[^\x00\n ]*)\x00`).FindAllSubmatch(plain, -1)
			if len(modules) < 70 {
				t.Errorf("%s of %s holds %d modules only", name, image, len(modules))
			}
			for _, m := range modules {
				module := string(m[1])
				if !fit.MatchString(module) || !strings.HasSuffix(module, ".ko") {
					t.Errorf("%s of %s holds %s", name, image, module)
				}
				if in[module] != "" {
					t.Errorf("%s of %s is in %s and %s", module, image, in[module], name)
				}
				in[module] = name
			}
			share := 100 * float64(packed) / float64(len(plain))
			t.Logf("%s of %s: %d bytes, %.1f %% of the %d it holds, %d modules", name, image, packed, share, len(plain), len(modules))
			if share > 29 {
				t.Errorf("%s of %s has %.1f %% of the bytes that it holds, want 29 at most", name, image, share)
			}
			if name == manifest.Initramfs {
				needsNothingElse(t, image, plain, modules)
			}
		}
	}
}

// maxGoPart bounds our programs in the initramfs, in bytes before they are packed, which
// makes a third of it. Every machine fetches them before it boots, unpacks them, and runs
// what each of their packages does on import at each start of one. A twentieth is spare.
// docs/boothost.md says what takes how much: look there before this number grows. It
// grew from 18,850,000 with @vrune, roles, live changes and the runes for whole networks.
const maxGoPart = 20_400_000

func TestGoPartIsSmall(t *testing.T) {
	packed, plain := unpack(t, out(t, "lib", imagebuild.GoInitramfs))
	t.Logf("%d bytes, %d at most; %d as packed", len(plain), maxGoPart, packed)
	if len(plain) > maxGoPart {
		t.Errorf("the Go part of the initramfs has %d bytes, more than %d: what came in (go list -deps, go version -m), and is it worth it?", len(plain), maxGoPart)
	}
}

// unpack returns the size of a file and what its packed part holds, which in the
// initramfs comes after the owner's key.
func unpack(t *testing.T, path string) (packed int, plain []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stream := bytes.Index(data, []byte{0x28, 0xb5, 0x2f, 0xfd})
	if stream < 0 {
		t.Fatalf("%s is not packed with zstd", path)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	// Up to three zeros may be behind it, which are no part of the stream.
	for end := len(data); end >= len(data)-3; end-- {
		if plain, err = z.DecodeAll(data[stream:end], nil); err == nil || data[end-1] != 0 {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(data), plain
}

// needsNothingElse reads the dependencies of the modules in an initramfs, which its
// table has for all: those that are there need none that is not.
func needsNothingElse(t *testing.T, image string, plain []byte, modules [][][]byte) {
	t.Helper()
	in := map[string]bool{}
	for _, m := range modules {
		in["kernel/"+string(m[1])] = true
	}
	lines := 0
	for _, line := range regexp.MustCompile(`(?m)^(kernel/\S+\.ko):(.*)$`).FindAllSubmatch(plain, -1) {
		lines++
		for _, need := range strings.Fields(string(line[2])) {
			if in[string(line[1])] && !in[need] {
				t.Errorf("in the initramfs of %s %s needs %s, which is not there", image, line[1], need)
			}
		}
	}
	if lines <= len(modules) {
		t.Errorf("the initramfs of %s knows of %d modules and holds %d: it cannot tell which drivers it has to fetch", image, lines, len(modules))
	}
}

// Whatever network card a machine has, it gets the driver and all that this needs, if
// its boot program tells the card: the kernel's own modprobe, which reads other tables,
// says for each alias what that is.
func TestEachCardGetsItsDrivers(t *testing.T) {
	harness.Need(t, "modprobe")
	tree, release := out(t, "trees", "tiny"), describe(t, "tiny").KernelRelease
	cards, everywhere := readNICs(t, out(t, "tiny", manifest.NICs)), modulesIn(unpacked(t, out(t, "tiny", manifest.Initramfs)))
	aliases, err := os.ReadFile(filepath.Join(tree, "lib", "modules", release, "modules.alias"))
	if err != nil {
		t.Fatal(err)
	}
	checked, narrowed, most := 0, 0, int64(0)
	for _, line := range regexp.MustCompile(`(?m)^alias (pci:v([0-9A-F]{8}|\*)d([0-9A-F]{8}|\*)sv\S+) (\S+)$`).FindAllStringSubmatch(string(aliases), -1) {
		if !cards.drives(line[4]) {
			continue
		}
		checked++
		got, size, all := cards.forCard(t, line[2], line[3])
		if all {
			continue // a vendor or device that can be anything
		}
		narrowed, most = narrowed+1, max(most, size)
		needs := needsOf(t, tree, release, strings.ReplaceAll(line[1], "*", "00"))
		if len(needs) == 0 {
			t.Errorf("modprobe knows nothing of %s", line[1])
		}
		for _, file := range needs {
			if !got[file] && !everywhere[file] {
				t.Errorf("%s: %s is not among what the card gets", line[1], file)
			}
		}
		// Transceivers' drivers are asked for when the card runs.
		for file := range cards.all {
			if phy := strings.HasPrefix(file, "kernel/drivers/net/phy/"); phy && slices.Contains(needs, "kernel/drivers/net/phy/libphy.ko") && !got[file] {
				t.Errorf("%s: transceivers' %s is not among what the card gets", line[1], file)
			}
		}
	}
	t.Logf("%d aliases, %d of them of a card that is known, which gets %d bytes at most of %d", checked, narrowed, most, cards.size)
	if checked < 900 || narrowed < 900 || most > cards.size/4 {
		t.Error("that is not what it should be: nearly every alias of more than 900, and a quarter at most")
	}
	// What no alias and no dependency tells.
	for card, want := range map[[2]string]string{
		{"15B3", "1003"}: "kernel/drivers/net/ethernet/mellanox/mlx4/mlx4_en.ko", // the driver asks for it by name
		{"1AF4", "1000"}: "kernel/drivers/net/virtio_net.ko",                     // on a bus on PCI
		{"1AF4", "1041"}: "kernel/drivers/net/virtio_net.ko",
		{"10EC", "8139"}: "kernel/drivers/net/xen-netfront.ko", // Xen's firmware boots from that
	} {
		got, size, all := cards.forCard(t, card[0], card[1])
		if all || !got[want] && !everywhere[want] {
			t.Errorf("card %s: all %v, %d bytes, without %s", card, all, size, want)
		}
	}
	for name, card := range map[string][2]string{
		"virtio_net": {"1AF4", "1000"}, "e1000": {"8086", "100E"}, "e1000e": {"8086", "10D3"}, "r8169": {"10EC", "8168"}, "igb": {"8086", "1521"},
		"ixgbe": {"8086", "10FB"}, "ice": {"8086", "1592"}, "tg3": {"14E4", "1657"}, "mlx4": {"15B3", "1003"},
	} {
		_, size, _ := cards.forCard(t, card[0], card[1])
		t.Logf("%s: %d bytes", name, size)
	}
}

// networkDrivers is a file of them, unpacked.
type networkDrivers struct {
	size     int64
	table    *nics.Table
	archives map[int64]map[string]bool // files of the archive at a place in the file
	all      map[string]bool
}

func readNICs(t *testing.T, path string) networkDrivers {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := networkDrivers{size: int64(len(data)), archives: map[int64]map[string]bool{}, all: map[string]bool{}}
	if n.table, err = nics.Read(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	at, err := n.table.Head(n.size)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, a := range n.table.Archives {
		plain, err := z.DecodeAll(data[at:at+a.Size], nil)
		if err != nil {
			t.Fatal(err)
		}
		n.archives[at] = modulesIn(plain)
		maps.Copy(n.all, n.archives[at])
		at += a.Size
	}
	return n
}

// drives reports whether one of the network drivers has that name.
func (n networkDrivers) drives(module string) bool {
	for file := range n.all {
		if strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_") == module {
			return true
		}
	}
	return false
}

// forCard returns the files that a card with these IDs gets, and the bytes; all is that
// it is not known.
func (n networkDrivers) forCard(t *testing.T, vendor, device string) (files map[string]bool, size int64, all bool) {
	t.Helper()
	card, err := nics.ParseCard(strings.ToLower(last4(vendor) + ":" + last4(device)))
	if err != nil {
		return n.all, n.size, true
	}
	spans, err := n.table.Spans(card, n.size)
	if err != nil {
		return n.all, n.size, true
	}
	files = map[string]bool{}
	for _, s := range spans {
		size += s.Length
		maps.Copy(files, n.archives[s.Offset])
	}
	return files, size, false
}

func last4(digits string) string { return digits[max(0, len(digits)-4):] }

// needsOf asks modprobe what it would load for a device.
func needsOf(t *testing.T, tree, release, modalias string) (files []string) {
	t.Helper()
	cmd := exec.Command("modprobe", "--dirname", tree, "--set-version", release, "--config", "/dev/null", "--show-depends", modalias)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	for _, m := range regexp.MustCompile(`(?m)^insmod \S*/(kernel/\S+)`).FindAllStringSubmatch(string(text), -1) {
		files = append(files, m[1])
	}
	return files
}

// modulesIn lists the modules in an archive that is unpacked.
func modulesIn(plain []byte) map[string]bool {
	files := map[string]bool{}
	for _, m := range regexp.MustCompile(`lib/modules/[^/\x00]+/(kernel/[^\x00\n ]+\.ko)\x00`).FindAllSubmatch(plain, -1) {
		files[string(m[1])] = true
	}
	return files
}

func unpacked(t *testing.T, path string) []byte {
	t.Helper()
	_, plain := unpack(t, path)
	return plain
}

// inside is run in namespaces of its own, with the test's directory as what
// will be the whole system.
const inside = `set -e
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
cd "$1"
export HOME=/root
exec chroot . /usr/bin/viver image build / -o /srv/mylab`

// The system that the tool itself runs on becomes an image, a medium, a stick:
// README's "Your own Linux", step by step.
func TestRunningSystemBecomesAStick(t *testing.T) {
	harness.Need(t, "unshare", "chroot", "mksquashfs", "ldd")
	root := t.TempDir()
	system := filepath.Join(root, "system")
	shell(t, root, "cp -a "+out(t, "trees", "tiny")+" system && mkdir -p system/usr/bin system/usr/lib/viver system/srv system/dev system/proc system/tmp")
	// The tool, what it ships beside it, and the one program it calls.
	shell(t, root, "cp "+out(t, "bin", "viver")+" system/usr/bin/ && cp -r "+out(t, "lib")+"/. system/usr/lib/viver/")
	shell(t, root, `program=$(command -v mksquashfs) && cp "$program" system/usr/bin/ && { ldd "$program"; ldconfig -p | grep -o "/.*/libgcc_s.so.1"; } | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "system$(dirname "$library")" && cp -L "$library" "system$library"; done`)
	shell(t, root, "unshare --map-root-user --mount --pid --fork sh -c '"+inside+"' sh "+system)

	image := filepath.Join(system, "srv", "mylab")
	owner := filepath.Join(system, "root", ".config", "viver", "owner.pub")
	viver(t, "image", "verify", image, "--public", owner)
	iso, stick := filepath.Join(root, "mylab.iso"), filepath.Join(root, "stick")
	viver(t, "medium", "build", image, "-o", iso, "--public", owner)
	if err := os.WriteFile(stick, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	viver(t, "medium", "write", iso, stick)
	shell(t, root, "cmp "+iso+" "+stick)
}

// The recipes have profiles of their images: files that a boot reads, which lie first
// (docs/images.md). Packages move on: a profile of what is no longer there is of no use.
func TestProfilesFitTheirImages(t *testing.T) {
	for _, image := range []string{"debian", "debian-sysvinit"} {
		root, err := os.Open(out(t, image, manifest.Root))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		files, err := squashmap.Read(root, describe(t, image).RootFile().Size)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(out(t), "..", image, "profile"))
		if err != nil {
			t.Fatalf("%v: ./build.sh profile %s makes it", err, image)
		}
		profile, err := bootprofile.Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		found, length, end := placed(files, profile)
		t.Logf("%s: %d of the %d files of the profile are in the image; their %d bytes end at %d", image, found, len(profile), length, end)
		if len(profile) < 100 || found < len(profile)*9/10 {
			t.Errorf("images/%s/profile has %d files, of which the image has %d: run ./build.sh profile %s, and commit that file", image, len(profile), found, image)
		}
		if end > length+1<<20 {
			t.Errorf("%s: the %d bytes of the profile end at %d: they do not lie first", image, length, end)
		}
	}
}

// placed counts the named files that there are, the bytes that they take, and where the
// last block ends that is all of one of them.
func placed(files []squashmap.File, names []string) (found int, length, end int64) {
	taken := map[squashmap.Extent]bool{}
	for _, f := range files {
		if !slices.Contains(names, f.Path) {
			continue
		}
		found++
		for i, b := range f.Blocks {
			if !taken[b] {
				taken[b] = true
				length += b.Length
			}
			if i < len(f.Blocks)-1 || !f.Fragment {
				end = max(end, b.Offset+b.Length)
			}
		}
	}
	return found, length, end
}
