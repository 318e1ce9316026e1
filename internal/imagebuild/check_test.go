package imagebuild

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"viver.lan/kernelconfig"
)

func problems(t *testing.T, files []file, kernel string) []string {
	t.Helper()
	tree, err := Scan(context.Background(), writeTree(t, files), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	_, _, err = tree.check(kernel)
	var p *Problems
	if err != nil && !errors.As(err, &p) {
		t.Fatal(err)
	}
	if p == nil {
		return nil
	}
	return p.List
}

func TestCheck(t *testing.T) {
	good := fakeFiles(t)
	dir := "lib/modules/" + testRelease + "/"
	nbd := dir + "kernel/drivers/block/nbd.ko"
	config := "boot/config-" + testRelease
	without := func(text, what string) string {
		out := strings.ReplaceAll(text, what, "")
		if out == text {
			t.Fatalf("the fixture has no %q", what)
		}
		return out
	}
	dep := ""
	for _, f := range good {
		if f.name == dir+"modules.dep" {
			dep = f.data
		}
	}
	for _, c := range []struct {
		name    string
		changes []file
		kernel  string
		want    []string // a part of each problem, in order
	}{
		{"good", nil, "", nil},
		{"good by name", nil, testRelease, nil},
		{"no kernel", []file{{name: "boot/vmlinuz-" + testRelease, data: "-"}}, "", []string{"no kernel: there is no vmlinuz"}},
		{"another kernel", nil, "5.0", []string{"no kernel 5.0: found " + testRelease}},
		{"not a kernel", []file{{name: "boot/vmlinuz-" + testRelease, data: "hello"}}, "", []string{"is not a kernel that a PC can boot", "no kernel"}},
		{"no init", []file{{name: "sbin/init", data: "-"}}, "", []string{"no init"}},
		{"init is no program", []file{{name: "sbin/init", data: "x", mode: 0o644}}, "", []string{"no init"}},
		{"systemd without a link", []file{{name: "sbin/init", data: "-"}, {name: "lib/systemd/systemd", data: "x", mode: 0o755}}, "", nil},
		{"kernel under lib/modules", []file{{name: "boot/vmlinuz-" + testRelease, data: "-"}, {name: dir + "vmlinuz", data: string(fakeKernel(testRelease))}}, "", nil},
		{"no modules.dep", []file{{name: dir + "modules.dep", data: "-"}}, "", []string{"depmod -b"}},
		{"no squashfs", []file{{name: config, data: without(fakeConfig(t), "CONFIG_SQUASHFS=m\n")}}, "", []string{"lacks CONFIG_SQUASHFS (=y or =m): the image's root"}},
		{"zstd squashfs as module", []file{{name: config, data: strings.ReplaceAll(fakeConfig(t), "CONFIG_SQUASHFS_ZSTD=y", "CONFIG_SQUASHFS_ZSTD=m")}}, "", []string{"CONFIG_SQUASHFS_ZSTD=y"}},
		{"gzip initramfs will do", []file{{name: config, data: strings.ReplaceAll(fakeConfig(t), "CONFIG_RD_ZSTD=y", "CONFIG_RD_GZIP=y")}}, "", nil},
		{"nbd built in", []file{{name: config, data: strings.ReplaceAll(fakeConfig(t), "CONFIG_BLK_DEV_NBD=m", "CONFIG_BLK_DEV_NBD=y")}, {name: nbd, data: "-"}}, "", nil},
		{"nbd in another package", []file{{name: nbd, data: "-"}, {name: dir + "modules.dep", data: without(dep, "kernel/drivers/block/nbd.ko: \n")}}, "", []string{"nbd.ko is not in"}},
		{"no configuration", []file{{name: config, data: "-"}}, "", nil},
		{"no configuration, no nbd", []file{{name: config, data: "-"}, {name: dir + "modules.dep", data: without(dep, "kernel/drivers/block/nbd.ko: \n")}}, "", []string{"no module nbd"}},
		{"everything at once", []file{{name: "sbin/init", data: "-"}, {name: dir + "modules.dep", data: "-"}}, "", []string{"no init", "depmod"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := problems(t, change(good, c.changes...), c.kernel)
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
	config := fakeConfig(t)
	for _, o := range options {
		lines := slices.DeleteFunc(strings.Split(config, "\n"), func(l string) bool { return strings.HasPrefix(l, "CONFIG_"+o.Names()[0]+"=") })
		got := problems(t, change(fakeFiles(t), file{name: "boot/config-" + testRelease, data: strings.Join(lines, "\n")}), "")
		if len(got) != 1 || !strings.Contains(got[0], o.String()) || !strings.Contains(got[0], o.Reason) {
			t.Errorf("without %s: %q", o, got)
		}
	}
}

func TestNewestKernelWins(t *testing.T) {
	files := change(fakeFiles(t),
		file{name: "boot/vmlinuz-6.1.0-10-test", data: string(fakeKernel("6.1.0-10-test"))},
		file{name: "boot/vmlinuz-6.1.0-8-test", data: string(fakeKernel("6.1.0-8-test"))})
	tree, err := Scan(context.Background(), writeTree(t, files), nil)
	if err != nil {
		t.Fatal(err)
	}
	kernels, _ := tree.kernels()
	var got []string
	for _, k := range kernels {
		got = append(got, k.Release)
	}
	if want := []string{"6.1.0-10-test", testRelease, "6.1.0-8-test"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	tree.dropOtherKernels(kernels[1])
	if tree.isFile("boot/vmlinuz-6.1.0-10-test") || !tree.isFile("boot/vmlinuz-"+testRelease) {
		t.Error("dropped the wrong kernel")
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
	f.Add(fakeKernel("6.1"))
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
