package bootfiles

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
	"viver.lan/kernelconfig"
)

func problems(t *testing.T, files []testlinux.File, kernel string) []string {
	t.Helper()
	_, err := Check(testlinux.FS(files), "here", kernel)
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), bullet)[1:]
}

func TestCheck(t *testing.T) {
	good := testlinux.Files(t)
	dir := "lib/modules/" + testlinux.Release + "/"
	nbd := dir + "kernel/drivers/block/nbd.ko"
	config := "boot/config-" + testlinux.Release
	without := func(text, what string) string {
		out := strings.ReplaceAll(text, what, "")
		if out == text {
			t.Fatalf("the fixture has no %q", what)
		}
		return out
	}
	dep := ""
	for _, f := range good {
		if f.Name == dir+"modules.dep" {
			dep = f.Data
		}
	}
	moved := func(to string) []testlinux.File {
		return []testlinux.File{{Name: "boot/vmlinuz-" + testlinux.Release, Data: "-"}, {Name: to, Data: string(testlinux.Kernel(testlinux.Release))}}
	}
	host := filepath.Join(t.TempDir(), "bzImage")
	if err := os.WriteFile(host, testlinux.Kernel(testlinux.Release), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		changes []testlinux.File
		kernel  string
		want    []string // a part of each problem, in order
	}{
		{"good", nil, "", nil},
		{"good by name", nil, testlinux.Release, nil},
		{"no kernel", []testlinux.File{{Name: "boot/vmlinuz-" + testlinux.Release, Data: "-"}}, "", []string{"no kernel: there is no vmlinuz"}},
		{"another kernel", nil, "5.0", []string{"no kernel 5.0: found " + testlinux.Release}},
		{"not a kernel", []testlinux.File{{Name: "boot/vmlinuz-" + testlinux.Release, Data: "hello"}}, "", []string{"is not a kernel that a PC can boot", "no kernel"}},
		{"no init", []testlinux.File{{Name: "sbin/init", Data: "-"}}, "", []string{"no init"}},
		{"init is no program", []testlinux.File{{Name: "sbin/init", Data: "x", Mode: 0o644}}, "", []string{"no init"}},
		{"systemd without a link", []testlinux.File{{Name: "sbin/init", Data: "-"}, {Name: "lib/systemd/systemd", Data: "x", Mode: 0o755}}, "", nil},
		{"kernel under lib/modules", []testlinux.File{{Name: "boot/vmlinuz-" + testlinux.Release, Data: "-"}, {Name: dir + "vmlinuz", Data: string(testlinux.Kernel(testlinux.Release))}}, "", nil},
		{"bzImage", moved("boot/bzImage-6.1"), "", nil},
		{"of systemd-boot", moved("boot/0123/" + testlinux.Release + "/linux"), "", nil},
		{"of systemd-boot on the EFI partition", moved("efi/0123/" + testlinux.Release + "/linux"), "", nil},
		{"in the store of NixOS", moved("nix/store/abc-linux-6.1/bzImage"), "", nil},
		{"in a unified image", []testlinux.File{{Name: "boot/vmlinuz-" + testlinux.Release, Data: "-"}, {Name: "boot/efi/EFI/Linux/x.efi", Data: testlinux.UnifiedKernel(t, testlinux.Kernel(testlinux.Release))}}, "", nil},
		{"by its file", moved("srv/my-kernel"), "/srv/my-kernel", nil},
		{"by a file that is none", []testlinux.File{{Name: "srv/text", Data: "hello"}}, "/srv/text", []string{"--kernel /srv/text is not a kernel"}},
		{"by a file of this host", moved("srv/unseen"), host, nil},
		{"one of two is for another machine", []testlinux.File{{Name: "boot/vmlinuz-5-arm64", Data: "MZ"}}, "", nil},
		{"no modules.dep", []testlinux.File{{Name: dir + "modules.dep", Data: "-"}}, "", []string{"depmod -b"}},
		{"no squashfs", []testlinux.File{{Name: config, Data: without(testlinux.Config(t), "CONFIG_SQUASHFS=m\n")}}, "", []string{"lacks CONFIG_SQUASHFS (=y or =m): the image's root"}},
		{"zstd squashfs as module", []testlinux.File{{Name: config, Data: strings.ReplaceAll(testlinux.Config(t), "CONFIG_SQUASHFS_ZSTD=y", "CONFIG_SQUASHFS_ZSTD=m")}}, "", []string{"CONFIG_SQUASHFS_ZSTD=y"}},
		{"gzip initramfs will do", []testlinux.File{{Name: config, Data: strings.ReplaceAll(testlinux.Config(t), "CONFIG_RD_ZSTD=y", "CONFIG_RD_GZIP=y")}}, "", nil},
		{"nbd built in", []testlinux.File{{Name: config, Data: strings.ReplaceAll(testlinux.Config(t), "CONFIG_BLK_DEV_NBD=m", "CONFIG_BLK_DEV_NBD=y")}, {Name: nbd, Data: "-"}}, "", nil},
		{"nbd in another package", []testlinux.File{{Name: nbd, Data: "-"}, {Name: dir + "modules.dep", Data: without(dep, "kernel/drivers/block/nbd.ko: \n")}}, "", []string{"nbd.ko is not in"}},
		{"no configuration", []testlinux.File{{Name: config, Data: "-"}}, "", nil},
		{"no configuration, no nbd", []testlinux.File{{Name: config, Data: "-"}, {Name: dir + "modules.dep", Data: without(dep, "kernel/drivers/block/nbd.ko: \n")}}, "", []string{"no module nbd"}},
		{"everything at once", []testlinux.File{{Name: "sbin/init", Data: "-"}, {Name: dir + "modules.dep", Data: "-"}}, "", []string{"no init", "depmod"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := problems(t, testlinux.Change(good, c.changes...), c.kernel)
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("problem %q does not say %q", got[i], c.want[i])
				}
			}
		})
	}
}

// TestEveryMissingOptionIsNamed takes one option after the other away.
func TestEveryMissingOptionIsNamed(t *testing.T) {
	options, err := kernelconfig.Options()
	if err != nil {
		t.Fatal(err)
	}
	config := testlinux.Config(t)
	for _, o := range options {
		lines := slices.DeleteFunc(strings.Split(config, "\n"), func(l string) bool { return strings.HasPrefix(l, "CONFIG_"+o.Names()[0]+"=") })
		got := problems(t, testlinux.Change(testlinux.Files(t), testlinux.File{Name: "boot/config-" + testlinux.Release, Data: strings.Join(lines, "\n")}), "")
		if len(got) != 1 || !strings.Contains(got[0], o.String()) || !strings.Contains(got[0], o.Reason) {
			t.Errorf("without %s: %q", o, got)
		}
	}
}

func TestNewestKernelWins(t *testing.T) {
	files := testlinux.Change(testlinux.Files(t),
		testlinux.File{Name: "boot/vmlinuz-6.1.0-10-test", Data: string(testlinux.Kernel("6.1.0-10-test"))},
		testlinux.File{Name: "boot/vmlinuz-6.1.0-8-test", Data: string(testlinux.Kernel("6.1.0-8-test"))})
	linux := testlinux.FS(files)
	kernels, _ := Kernels(linux)
	var got []string
	for _, k := range kernels {
		got = append(got, k.Release)
	}
	if want := []string{"6.1.0-10-test", testlinux.Release, "6.1.0-8-test"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// The newest has no modules: left behind by an update.
	c, err := Check(linux, "here", "")
	if err != nil || c.Kernel.Release != testlinux.Release || len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "6.1.0-10-test is newer and has no modules") {
		t.Errorf("chose %+v, %v", c, err)
	}
}

func TestCompareReleases(t *testing.T) {
	ascending := []string{"", "5.10.0", "6.1", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.9.1", "6.10", "6.10.1-arch1"}
	for i, a := range ascending {
		for j, b := range ascending {
			got := compareReleases(a, b)
			if (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compareReleases(%q, %q) = %d", a, b, got)
			}
		}
	}
}

func FuzzParseBzImage(f *testing.F) {
	f.Add(testlinux.Kernel("6.1"))
	f.Add([]byte("HdrS"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		release, err := parseBzImage(data)
		if err == nil && (release == "" || strings.Contains(release, "/")) {
			t.Errorf("took the release %q", release)
		}
	})
}

func FuzzCompareReleases(f *testing.F) {
	f.Add("6.1.0-9", "6.10")
	f.Fuzz(func(t *testing.T, a, b string) {
		if compareReleases(a, b) != -compareReleases(b, a) {
			t.Errorf("%q and %q have no order", a, b)
		}
	})
}
