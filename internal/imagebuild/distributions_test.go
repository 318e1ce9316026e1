package imagebuild

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/ether"
	"viver.lan/internal/handover"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/rootfs"
	"viver.lan/internal/runes"
	"viver.lan/internal/testlinux"
	"viver.lan/overlay"
)

// installed is what an installed distribution has where: the facts that an image
// depends on. A value of files that begins with "->" is a link, one that is "program"
// a program.
type installed struct {
	name, release string
	osRelease     string
	kernel        string // its file
	unified       bool   // which is a unified kernel image
	modules       string // their directory, by default usr/lib/modules/RELEASE
	ending        string // of a compressed module
	config        string // the kernel's configuration, "" for none
	split         bool   // /bin, /lib and /sbin are no links into /usr
	files         map[string]string

	init    initsystem.Kind
	hold    []string // what keeps the distribution off the boot NIC
	advice  string   // the package that has a module that is missing
	enforce bool     // SELinux
}

var distributions = []installed{
	{
		name: "Debian", release: "6.12.48+deb13-amd64", osRelease: "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"",
		kernel: "boot/vmlinuz-6.12.48+deb13-amd64", ending: ".xz", config: "boot/config-6.12.48+deb13-amd64",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program", "etc/network/interfaces": "auto lo\niface lo inet loopback\n"},
		init:  initsystem.Systemd, hold: []string{"etc/network/interfaces.d/viver"}, advice: "linux-image-amd64",
	},
	{
		name: "Debian with sysvinit", release: "6.1.0-40-amd64", osRelease: "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"",
		kernel: "boot/vmlinuz-6.1.0-40-amd64", config: "boot/config-6.1.0-40-amd64",
		files: map[string]string{"usr/sbin/init": "program", "etc/inittab": "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n", "etc/network/interfaces": "auto lo\n"},
		init:  initsystem.SysVInit, hold: []string{"run/network/ifstate.eth0", "etc/default/halt"}, advice: "linux-image-amd64",
	},
	{
		name: "Ubuntu", release: "6.8.0-85-generic", osRelease: "ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME=\"Ubuntu 24.04.3 LTS\"",
		kernel: "boot/vmlinuz-6.8.0-85-generic", ending: ".zst", config: "boot/config-6.8.0-85-generic",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program", "usr/lib/systemd/systemd-networkd": "program", "usr/lib/systemd/network/99-default.link": "",
			"etc/NetworkManager/NetworkManager.conf": "", "etc/netplan/01-network-manager-all.yaml": "network: {renderer: NetworkManager}\n"},
		init: initsystem.Systemd, hold: []string{"run/NetworkManager/conf.d/viver.conf", "run/systemd/network/00-viver.network"}, advice: "linux-modules-extra-6.8.0-85-generic",
	},
	{
		name: "Fedora", release: "6.16.7-200.fc42.x86_64", osRelease: "ID=fedora\nPRETTY_NAME=\"Fedora Linux 42 (Server Edition)\"",
		kernel: "usr/lib/modules/6.16.7-200.fc42.x86_64/vmlinuz", ending: ".xz", config: "usr/lib/modules/6.16.7-200.fc42.x86_64/config",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program", "etc/NetworkManager/NetworkManager.conf": "",
			"etc/selinux/config": "# a comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n"},
		init: initsystem.Systemd, hold: []string{"run/NetworkManager/conf.d/viver.conf"}, advice: "kernel-modules-6.16.7-200.fc42.x86_64", enforce: true,
	},
	{
		name: "Fedora, unified", release: "6.16.7-200.fc42.x86_64", osRelease: "ID=fedora\nPRETTY_NAME=\"Fedora Linux 42 (Cloud Edition)\"",
		kernel: "boot/efi/EFI/Linux/0123-6.16.7-200.fc42.x86_64.efi", unified: true, ending: ".xz",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program", "etc/selinux/config": "SELINUX=permissive\n"},
		init:  initsystem.Systemd, advice: "kernel-modules-6.16.7-200.fc42.x86_64",
	},
	{
		name: "Fedora Silverblue", release: "6.16.7-200.fc42.x86_64", osRelease: "ID=fedora\nVARIANT_ID=silverblue\nPRETTY_NAME=\"Fedora Linux 42 (Silverblue)\"",
		kernel: "boot/ostree/fedora-0123abcd/vmlinuz-6.16.7-200.fc42.x86_64", ending: ".xz", config: "boot/ostree/fedora-0123abcd/config-6.16.7-200.fc42.x86_64",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program", "etc/NetworkManager/NetworkManager.conf": ""},
		init:  initsystem.Systemd, hold: []string{"run/NetworkManager/conf.d/viver.conf"}, advice: "kernel-modules-",
	},
	{
		name: "Arch", release: "6.16.8-arch3-1", osRelease: "ID=arch\nPRETTY_NAME=\"Arch Linux\"",
		kernel: "usr/lib/modules/6.16.8-arch3-1/vmlinuz", ending: ".zst", // no configuration
		files: map[string]string{"usr/bin/init": "->../lib/systemd/systemd", "usr/sbin": "->bin", "usr/lib/systemd/systemd": "program", "usr/lib/systemd/systemd-networkd": "program"},
		init:  initsystem.Systemd, hold: []string{"run/systemd/network/00-viver.network"}, advice: "linux",
	},
	{
		name: "Arch with systemd-boot", release: "6.12.49-1-lts", osRelease: "ID=arch\nPRETTY_NAME=\"Arch Linux\"",
		kernel: "efi/0123456789abcdef/6.12.49-1-lts/linux", ending: ".zst", config: "usr/lib/modules/6.12.49-1-lts/build/.config", // with linux-lts-headers
		files: map[string]string{"usr/lib/systemd/systemd": "program"}, // without systemd-sysvcompat
		init:  initsystem.Systemd, advice: "linux-lts",
	},
	{
		name: "Alpine", release: "6.12.50-0-lts", osRelease: "ID=alpine\nPRETTY_NAME=\"Alpine Linux v3.22\"",
		kernel: "boot/vmlinuz-lts", modules: "lib/modules/6.12.50-0-lts", ending: ".gz", config: "boot/config-6.12.50-0-lts", split: true,
		files: map[string]string{"sbin/init": "->/bin/busybox", "bin/busybox": "program", "etc/inittab": "::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n", "etc/network/interfaces": "auto lo\n"},
		init:  initsystem.OpenRC, hold: []string{"etc/network/interfaces.d/viver"}, advice: "linux-lts",
	},
	{
		name: "busybox alone", release: "6.12.50-0-virt", osRelease: "ID=alpine\nPRETTY_NAME=\"Alpine Linux v3.22\"",
		kernel: "boot/vmlinuz-virt", modules: "lib/modules/6.12.50-0-virt", ending: ".gz", config: "boot/config-6.12.50-0-virt", split: true,
		files: map[string]string{"sbin/init": "->/bin/busybox", "bin/busybox": "program", "etc/inittab": "::sysinit:/etc/init.d/rcS\n"},
		init:  initsystem.BusyBox, advice: "linux-lts (linux-virt has fewer",
	},
	{
		name: "openSUSE", release: "6.16.8-1-default", osRelease: "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\nPRETTY_NAME=\"openSUSE Tumbleweed\"",
		kernel: "boot/efi/opensuse-tumbleweed/6.16.8-1-default/linux-0123abcd", ending: ".zst", config: "usr/lib/modules/6.16.8-1-default/config",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program", "etc/NetworkManager/NetworkManager.conf": "", "etc/selinux/config": "SELINUX=enforcing\n"},
		init:  initsystem.Systemd, hold: []string{"run/NetworkManager/conf.d/viver.conf"}, advice: "kernel-default-optional", enforce: true,
	},
	{
		name: "Void", release: "6.12.50_1", osRelease: "ID=\"void\"\nPRETTY_NAME=\"Void Linux\"",
		kernel: "boot/vmlinuz-6.12.50_1", ending: ".zst", config: "boot/config-6.12.50_1",
		files: map[string]string{"usr/sbin": "->bin", "usr/bin/init": "->runit-init", "usr/bin/runit-init": "program", "etc/dhcpcd.conf": "hostname\n"},
		init:  initsystem.Runit, hold: []string{"etc/dhcpcd.conf"}, advice: "linux",
	},
	{
		name: "Gentoo", release: "6.12.41-gentoo-dist", osRelease: "ID=gentoo\nPRETTY_NAME=\"Gentoo Linux\"",
		kernel: "boot/kernel-6.12.41-gentoo-dist", modules: "lib/modules/6.12.41-gentoo-dist", config: "boot/config-6.12.41-gentoo-dist", split: true,
		files: map[string]string{"sbin/init": "program", "etc/inittab": "si::sysinit:/sbin/openrc sysinit\nrc::bootwait:/sbin/openrc boot\n", "etc/dhcpcd.conf": "hostname\n"},
		init:  initsystem.OpenRC, hold: []string{"etc/dhcpcd.conf"}, advice: "sys-kernel/gentoo-kernel-bin",
	},
	{
		name: "Gentoo with genkernel", release: "6.12.41-gentoo-x86_64", osRelease: "ID=gentoo\nPRETTY_NAME=\"Gentoo Linux\"",
		kernel: "boot/bzImage", config: "etc/kernels/kernel-config-6.12.41-gentoo-x86_64",
		files: map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "usr/lib/systemd/systemd": "program"},
		init:  initsystem.Systemd, advice: "sys-kernel/gentoo-kernel-bin",
	},
	{
		name: "NixOS", release: "6.12.49", osRelease: "ID=nixos\nPRETTY_NAME=\"NixOS 25.05 (Warbler)\"",
		kernel: "nix/store/k-linux-6.12.49/bzImage", modules: "nix/store/m-linux-6.12.49-modules/lib/modules/6.12.49", ending: ".xz", split: true,
		files: map[string]string{"nix/var/nix/profiles/system": "->system-7-link", "nix/var/nix/profiles/system-7-link": "->/nix/store/s-nixos-system-lab-25.05",
			"nix/store/s-nixos-system-lab-25.05/init": "program", "nix/store/s-nixos-system-lab-25.05/kernel": "->/nix/store/k-linux-6.12.49/bzImage",
			"nix/store/s-nixos-system-lab-25.05/kernel-modules": "->/nix/store/m-linux-6.12.49-modules", "nix/store/s-nixos-system-lab-25.05/systemd": "->/nix/store/d-systemd-257",
			"nix/store/d-systemd-257/lib/systemd/systemd": "program"},
		init: initsystem.Systemd, advice: "boot.kernelPackages",
	},
}

// packers compress modules as distributions do, by the ending of the name.
var packers = map[string]func(io.Writer) (io.WriteCloser, error){
	".xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	".zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	".gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
}

// program is the shortest file that passes for one of this machine.
func program(t *testing.T) string {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// lay makes the tree of a distribution; without has modules that it lacks.
func (d installed) lay(t *testing.T, without string) string {
	t.Helper()
	root := t.TempDir()
	put := func(name, data string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(data, "->"); ok {
			err = os.Symlink(target, name)
		} else if data == "program" {
			err = os.WriteFile(name, []byte(program(t)), 0o755)
		} else {
			err = os.WriteFile(name, []byte(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !d.split {
		for _, dir := range []string{"bin", "lib", "sbin"} {
			put(dir, "->usr/"+dir)
		}
	}
	kernel := testlinux.Kernel(d.release)
	if d.unified {
		kernel = []byte(testlinux.UnifiedKernel(t, kernel))
	}
	put(d.kernel, string(kernel))
	put("etc/os-release", "->../usr/lib/os-release")
	put("usr/lib/os-release", d.osRelease+"\n")
	if d.config != "" {
		put(d.config, testlinux.Config(t))
	}
	for name, data := range d.files {
		put(name, data)
	}
	modules := d.modules
	if modules == "" {
		modules = "usr/lib/modules/" + d.release
	}
	var dep strings.Builder
	for _, m := range testlinux.Modules {
		if without != "" && strings.Contains(m.File, without) {
			continue
		}
		data := "module " + m.File
		if pack := packers[d.ending]; pack != nil && without == "" { // else nobody reads it
			data = compress(t, data, pack)
		}
		put(path.Join(modules, m.File+d.ending), data)
		dep.WriteString(m.File + d.ending + ":")
		for _, need := range m.Deps {
			dep.WriteString(" " + need + d.ending)
		}
		dep.WriteString("\n")
	}
	put(path.Join(modules, "modules.dep"), dep.String())
	put(path.Join(modules, "modules.alias"), "alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n")
	return root
}

// TestDistributions takes each distribution as far as it goes without starting it: its
// kernel, the modules in its initramfs, its init as a node finds it, and what keeps its
// network tools off the boot NIC.
func TestDistributions(t *testing.T) {
	builtin, err := overlay.Runes()
	if err != nil {
		t.Fatal(err)
	}
	bundles, errs := runes.Load(builtin)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, d := range distributions {
		t.Run(d.name, func(t *testing.T) {
			tree, err := imagetree.Scan(t.Context(), d.lay(t, ""), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			linux, err := bootfiles.Check(tree, "here", "")
			if err != nil {
				t.Fatal(err)
			}
			if linux.Kernel.Release != d.release || (linux.Config != nil) != (d.config != "") {
				t.Errorf("took %+v, with a configuration: %v", linux.Kernel, linux.Config != nil)
			}
			if image, err := linux.Kernel.Read(tree); err != nil || !bytes.Equal(image, testlinux.Kernel(d.release)) {
				t.Errorf("%s: %d bytes, %v", linux.Kernel.Path, len(image), err)
			}
			modules, err := bootfiles.ChooseModules(tree, linux.Kernel)
			if err != nil {
				t.Fatal(err)
			}
			drivers := filepath.Join(t.TempDir(), "drivers.img")
			if err := writeTo(drivers, func(w io.Writer) error {
				return modules.WriteDrivers(t.Context(), w, linux.Config, func(int64, int64) {})
			}); err != nil {
				t.Fatal(err)
			}
			if plain := unpacked(t, drivers); !bytes.Contains(plain, []byte("lib/modules/"+d.release+"/kernel/fs/ext4/ext4.ko\x00")) || !bytes.Contains(plain, []byte("module kernel/fs/ext4/ext4.ko")) {
				t.Error("the drivers have no ext4 as the kernel loads it")
			}
			linkInit(tree, linux.Init)
			d.checkRoot(t, unsquashed(t, tree), bundles)
			if text := strings.Join(tree.Report.Lines(), "\n"); strings.Contains(text, "SELinux") != d.enforce {
				t.Errorf("of SELinux: %s", text)
			}
		})
	}
}

// checkRoot looks at the root as a node does that boots it.
func (d installed) checkRoot(t *testing.T, root string, bundles []runes.Bundle) {
	t.Helper()
	init, err := handover.FindInit(root, "")
	if err != nil {
		t.Fatal(err)
	}
	if kind := initsystem.Of(root, init); kind != d.init {
		t.Errorf("%s is taken for %s, want %s", init, kind, d.init)
	}
	where := runes.Target{Root: root, Run: t.TempDir()}
	facts := runes.Facts{Hostname: "n1", Interface: "eth0", MAC: ether.MAC{2, 0, 0, 0, 0, 1}, Address: "10.77.0.1", PrefixLength: 16, Init: string(d.init)}
	for _, b := range bundles {
		if b.Name != "network" {
			continue
		}
		for _, r := range runes.Apply(t.Context(), where, []runes.Bundle{b}, facts, slog.New(slog.NewTextHandler(t.Output(), nil))) {
			if r.Outcome != runes.Applied {
				t.Errorf("rune %s: %+v", r.Rune, r)
			}
			for _, want := range d.hold {
				if !strings.Contains(strings.Join(r.Files, "\n")+"\n", "/"+want+"\n") {
					t.Errorf("the boot NIC is not held by /%s, only by %q", want, r.Files)
				}
			}
		}
	}
	if config, err := os.ReadFile(filepath.Join(root, "etc/selinux/config")); strings.HasPrefix(string(config), "SELINUX=enforcing") || strings.Contains(string(config), "\nSELINUX=enforcing") {
		t.Errorf("SELinux: %s, %v", config, err)
	}
}

// unsquashed is a tree as it is in the image.
func unsquashed(t *testing.T, tree *imagetree.Tree) string {
	t.Helper()
	testlinux.Tool(t, "mksquashfs")
	dir := t.TempDir()
	file, root := filepath.Join(dir, "file"), filepath.Join(dir, "root")
	if err := rootfs.Write(context.Background(), tree, file, rootfs.Options{Level: 1}, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-d", root, file)
	return root
}

// TestMissingModuleIsAdvised takes a module away that each node needs: its package is
// named as the distribution calls it.
func TestMissingModuleIsAdvised(t *testing.T) {
	modules := []string{"nbd", "squashfs", "overlay"}
	for i, d := range distributions {
		module := modules[i%len(modules)]
		tree, err := imagetree.Scan(t.Context(), d.lay(t, "/"+module+".ko"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = bootfiles.Check(tree, "here", "")
		if err == nil || !strings.Contains(err.Error(), module) || !strings.Contains(err.Error(), "\nFor what the kernel lacks install ") || !strings.Contains(err.Error(), d.advice) {
			t.Errorf("%s without %s: %v", d.name, module, err)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}
}
