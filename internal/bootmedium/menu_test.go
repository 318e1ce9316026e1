package bootmedium

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/config"
	"viver.lan/internal/imagebuild/imagebuildtest"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/testlinux"
)

// fakeImages are images of these names; nothing of them is on a disk.
func fakeImages(names ...string) (list []image) {
	for i, name := range names {
		hash := manifest.Infohash{byte(i + 1)}
		list = append(list, image{at: media.ImageDir(manifest.Infohash{1}, hash), Manifest: &manifest.Manifest{
			Name: name, Infohash: hash, Files: []manifest.FileInfo{{Name: manifest.Kernel}, {Name: manifest.Initramfs}}}})
	}
	return list
}

// grubConfig is the configuration for a menu, which GRUB's own checker takes.
func grubConfig(t *testing.T, images []image, settings config.Settings, arguments ...string) string {
	t.Helper()
	m, err := newMenu(images, "0123456789abcdef", settings, arguments)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := execute(&b, grubTemplate, m); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "grub.cfg")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "grub-script-check", name)
	return b.String()
}

// Each image has an entry that names it; the last entry, whose number is the fallback,
// leaves the medium.
func TestMenuOfSeveralImages(t *testing.T) {
	testlinux.Tool(t, "grub-script-check")
	c := config.New()
	c.AddTOML(config.Medium, []byte("[boot]\ndefault = \"exam\"\ntimeout = -1\n"))
	images := fakeImages("office", "exam", "it's")
	text := grubConfig(t, images, c.Settings(), "quiet")
	const medium = "viver.medium=0123456789abcdef viver.image="
	for _, want := range []string{
		"set timeout=-1\n", "set default=1\n", "set fallback=6\n",
		"menuentry 'VIVER: office' --id viver-1 {\n  linux /viver/image/vmlinuz " + medium + images[0].Infohash.String() + " $consoles cryptomgr.notests quiet\n  initrd /viver/image/initramfs.img\n}",
		"menuentry 'VIVER: exam' --id viver-2 {\n  linux /viver/images/" + images[1].Infohash.String() + "/vmlinuz " + medium + images[1].Infohash.String() + " $consoles ",
		"menuentry 'VIVER: it_s, rescue console on the serial line' --id serial-3 {",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not have %q:\n%s", want, text)
		}
	}
	if entries := strings.Split(text, "\nmenuentry "); len(entries) != 8 || !strings.HasPrefix(entries[7], "'Boot from the next device'") {
		t.Errorf("%d entries, the last: %s", len(entries)-1, entries[len(entries)-1])
	}
	c.AddTOML(config.Medium, []byte("[boot]\ndefault = \"home\"\n"))
	if _, err := newMenu(images, "", c.Settings(), nil); err == nil || !strings.Contains(err.Error(), `boot.default is "home", the medium has office, exam, it's`) {
		t.Errorf("a default that is not there: %v", err)
	}
}

// A medium with one image says nowhere which, so the initramfs of any image reads it.
func TestMenuOfOneImage(t *testing.T) {
	testlinux.Tool(t, "grub-script-check")
	text := grubConfig(t, fakeImages("office"), config.New().Settings())
	for _, want := range []string{"set timeout=3\n", "set default=0\n", "set fallback=2\n", " --id viver {\n  linux /viver/image/vmlinuz viver.medium=0123456789abcdef $consoles cryptomgr.notests\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not have %q:\n%s", want, text)
		}
	}
}

// Earlier versions of the image tool put all drivers into fewer files.
func TestInitramfsOfOlderImages(t *testing.T) {
	const at = "/" + media.ImagePath + "/"
	for want, files := range map[string][]string{
		at + manifest.Initramfs:                               {manifest.Kernel, manifest.Initramfs},
		at + manifest.Initramfs + " " + at + manifest.Drivers: {manifest.Initramfs, manifest.Drivers, manifest.Kernel},
	} {
		i := image{at: media.ImagePath, Manifest: &manifest.Manifest{Format: 1}}
		for _, name := range files {
			i.Files = append(i.Files, manifest.FileInfo{Name: name})
		}
		if got := i.initramfs(); got != want {
			t.Errorf("of %q it loads %q, want %q", files, got, want)
		}
	}
}

// Both images of a medium are whole on it, each where its menu entry says; one image
// twice and two of one name are refused.
func TestMediumOfTwoImages(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	one := imagebuildtest.Build(t, testlinux.Files(t))
	two := imagebuildtest.BuildAs(t, "exam", testlinux.Change(testlinux.Files(t), testlinux.File{Name: "etc/exam", Data: "yes"}))
	same := imagebuildtest.Build(t, testlinux.Change(testlinux.Files(t), testlinux.File{Name: "etc/other", Data: "yes"}))
	owner := testlinux.Key().Public()
	iso := filepath.Join(t.TempDir(), "x.iso")
	marker, err := Build(t.Context(), Config{Images: []string{one, two}, Owner: owner, Output: iso})
	if err != nil {
		t.Fatal(err)
	}
	of, err := imagedir.Summarize(two)
	if err != nil {
		t.Fatal(err)
	}
	second := of.Manifest.Infohash
	out := t.TempDir()
	testlinux.Run(t, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/viver", filepath.Join(out, "viver"))
	for at, want := range map[string]manifest.Infohash{
		media.ImagePath:                      marker.Image,
		media.ImageDir(marker.Image, second): second,
	} {
		v, err := imagedir.Verify(t.Context(), filepath.Join(out, at), owner, nil)
		if err != nil || v.Err() != nil || v.Manifest.Infohash != want {
			t.Errorf("the image at %s: %v, %v", at, err, v)
		}
	}
	// The same medium without an ISO: made while it is written, and read back.
	stick := filepath.Join(t.TempDir(), "stick")
	if _, _, err := WriteImages(t.Context(), Config{Images: []string{one, two}, Owner: owner}, stick, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	direct := t.TempDir()
	testlinux.Run(t, "xorriso", "-osirrox", "on", "-indev", stick, "-extract", "/viver", filepath.Join(direct, "viver"))
	testlinux.Run(t, "diff", "-r", "--exclude=medium.json", out, direct)
	if about := testlinux.Run(t, "xorriso", "-indev", stick, "-report_el_torito", "plain"); !strings.Contains(about, "El Torito boot img :   2  UEFI") {
		t.Errorf("xorriso says of it:\n%s", about)
	}
	for want, pair := range map[string][]string{
		"are the same image ": {one, one},
		"are both called ":    {one, same},
	} {
		if _, err := Build(t.Context(), Config{Images: pair, Owner: owner, Output: iso + "2"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// What no single extent of ISO 9660 holds goes another way than the rest: xorriso refuses
// it as grub-mkrescue calls it.
func TestLargeFilesAreMapped(t *testing.T) {
	i := image{dir: "/x", at: media.ImagePath, Manifest: &manifest.Manifest{Files: []manifest.FileInfo{
		{Name: manifest.Root, Size: 1 << 32}, {Name: manifest.Kernel, Size: 1<<32 - 1}}}}
	plain, large := graft([]image{i})
	if want := []string{"/viver/image/manifest.json=/x/manifest.json", "/viver/image/manifest.json.minisig=/x/manifest.json.minisig",
		"/viver/image/image.torrent=/x/image.torrent", "/viver/image/vmlinuz=/x/vmlinuz"}; !slices.Equal(plain, want) {
		t.Errorf("as they are: %q, want %q", plain, want)
	}
	if want := []string{"-compliance", "iso_9660_level=3", "-file_size_limit", "off", "--", "-map", "/x/root.squashfs", "/viver/image/root.squashfs"}; !slices.Equal(large, want) {
		t.Errorf("large ones: %q, want %q", large, want)
	}
}

// A distribution's boot programs do not start the kernel of another with Secure Boot on.
func TestMediumSaysWhatSecureBootRefuses(t *testing.T) {
	signed := func(file, maker string) []byte {
		data, err := os.ReadFile(filepath.Join("../bootfiles/testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.ReplaceAll(data, []byte("Debian Secure Boot CA"), []byte(maker+" Secure Boot CA"))
	}
	var images []image
	for _, maker := range []string{"Debian", "Fedora", "Debian", ""} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, manifest.BootDir), 0o755); err != nil {
			t.Fatal(err)
		}
		kernel, shim := "not signed", testlinux.UEFIProgram(t, strings.Repeat("\x00", 0x200), signed("debian-shim.vendor_cert", maker))
		if maker != "" {
			kernel = testlinux.UEFIProgram(t, strings.Repeat("\x00", 0x200), nil, signed("debian-kernel.p7", maker))
		}
		for name, data := range map[string]string{manifest.Kernel: kernel, manifest.BootDir + "/" + bootfiles.Shim: shim} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		images = append(images, image{dir: dir, Manifest: &manifest.Manifest{Name: "of " + maker}})
	}
	notes, err := distrusted(images)
	if err != nil || len(notes) != 1 || !strings.HasPrefix(notes[0], "of Fedora: its kernel is signed by another distribution than that of of Debian") {
		t.Errorf("got %q, %v", notes, err)
	}
}
