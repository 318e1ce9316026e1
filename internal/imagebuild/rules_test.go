package imagebuild

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
)

// swapFile is a file of 64 KiB with a mark at the end of a page of that size.
func swapFile(page int, mark string) string {
	b := make([]byte, 64<<10)
	copy(b[page-len(mark):], mark)
	return string(b)
}

// isoFile is as large as the smallest medium and has a volume label.
func isoFile(label string) string {
	b := make([]byte, settingsSize)
	copy(b[16*2048:], "\x01CD001")
	copy(b[16*2048+40:], label)
	return string(b)
}

// whatStaysOut has one file for each way to stay out, and one like it that
// travels.
var whatStaysOut = []file{
	{name: "etc/fstab", data: "UUID=1 / ext4 defaults 0 1\n/var/pages none swap sw 0 0\n/var/with\\040blank none swap sw\n"},
	{name: "var/pages", data: "by fstab"}, {name: "var/with blank", data: "by fstab"}, {name: "var/pages.txt", data: "no swap"},
	{name: "srv/swap4k", data: swapFile(4096, "SWAPSPACE2")}, {name: "srv/swap64k", data: swapFile(65536, "SWAPSPACE2")},
	{name: "srv/old-swap", data: swapFile(4096, "SWAP-SPACE")}, {name: "srv/hibernated", data: swapFile(4096, "LINHIB0001")},
	{name: "srv/no-swap", data: swapFile(4000, "SWAPSPACE2")},
	{name: "srv/m.iso", data: isoFile(media.Label)}, {name: "srv/other.iso", data: isoFile("DEBIAN")},
	{name: "home/u/lab/" + manifest.File, data: "{}"}, {name: "home/u/lab/" + manifest.Metainfo, data: "d"}, {name: "home/u/lab/" + manifest.Root, data: "hsqs"},
	{name: "home/u/.lab.17.part/" + manifest.Root, data: "hsqs"}, {name: "home/u/web/" + manifest.File, data: "{}"},
	{name: "var/lib/docker/overlay2/l1/f", data: "layer"}, {name: "var/lib/docker/volumes/v/f", data: "volume"},
	{name: "system-update", data: "/var/up"}, {name: ".autorelabel", data: ""}, {name: "viver-data", data: ""},
	{name: "root/.ssh/id_ed25519", data: "key"}, {name: "root/.ssh/authorized_keys", data: "who may log in"},
	{name: "etc/iscsi/initiatorname.iscsi", data: "iqn"}, {name: "etc/iscsi/iscsid.conf", data: "#"},
	{name: "etc/machine-id", data: "0123"}, {name: "var/log/lastlog", data: "anna"}, {name: "var/log/syslog", data: "a line"},
}

// TestWhatStaysOut builds the same tree from a directory and from an archive.
func TestWhatStaysOut(t *testing.T) {
	root := writeTree(t, whatStaysOut)
	archive := filepath.Join(t.TempDir(), "t.tar")
	runTool(t, "tar", "-C", root, "-cf", archive, ".")
	for _, c := range []struct {
		name string
		keep []string
		want []string // names of all files
	}{
		{"nothing kept", nil, []string{"etc/fstab", "etc/iscsi/iscsid.conf", "etc/machine-id", "home/u/web/manifest.json", "root/.ssh/authorized_keys",
			"srv/no-swap", "srv/other.iso", "var/log/lastlog", "var/log/syslog", "var/pages.txt"}},
		{"some kept", []string{"/var/lib/docker/volumes", "srv/*", "root/.ssh/id_*", "var/pages", "home/u/lab", "/etc/machine-id"},
			[]string{"etc/fstab", "etc/iscsi/iscsid.conf", "etc/machine-id", "home/u/lab/image.torrent", "home/u/lab/manifest.json", "home/u/lab/root.squashfs", "home/u/web/manifest.json",
				"root/.ssh/authorized_keys", "root/.ssh/id_ed25519", "srv/hibernated", "srv/m.iso", "srv/no-swap", "srv/old-swap", "srv/other.iso", "srv/swap4k", "srv/swap64k",
				"var/lib/docker/volumes/v/f", "var/log/lastlog", "var/log/syslog", "var/pages", "var/pages.txt"}},
	} {
		for _, source := range []string{root, archive} {
			t.Run(c.name+", "+filepath.Base(source), func(t *testing.T) {
				tree, err := Scan(context.Background(), source, c.keep)
				if err != nil {
					t.Fatal(err)
				}
				defer tree.Close()
				replace, err := tree.replacements()
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if err := tree.writeTar(context.Background(), &b, replace, func(int64) {}); err != nil {
					t.Fatal(err)
				}
				content := make(map[string]string)
				for _, m := range members(t, &b) {
					if f := strings.SplitN(m, "|", 4); f[1] == string(tar.TypeReg) {
						content[f[0]] = f[3]
					}
				}
				var got []string
				for name := range content {
					got = append(got, name)
				}
				if slices.Sort(got); !slices.Equal(got, c.want) {
					t.Errorf("got  %q\nwant %q", got, c.want)
				}
				if content["var/log/lastlog"] != "" || (content["etc/machine-id"] != "") != slices.Contains(c.keep, "/etc/machine-id") {
					t.Errorf("lastlog %q, machine-id %q", content["var/log/lastlog"], content["etc/machine-id"])
				}
				var report bytes.Buffer
				if err := tree.report.write(&report); err != nil {
					t.Fatal(err)
				}
				for _, f := range whatStaysOut {
					top := f.name
					for _, dir := range []string{"home/u/lab", "home/u/.lab.17.part", "var/lib/docker/overlay2", "var/lib/docker/volumes"} {
						if strings.HasPrefix(f.name, dir+"/") {
							top = dir
						}
					}
					if _, ok := content[f.name]; !ok && !strings.Contains(report.String(), "\t/"+top+"\n") {
						t.Errorf("%s is not in the image, report:\n%s", f.name, report.String())
					}
				}
			})
		}
	}
}

// TestThePageNamesEveryRule holds docs/images.md against the rules.
func TestThePageNamesEveryRule(t *testing.T) {
	page := string(read(t, "../../docs/images.md"))
	for _, rule := range append(slices.Clone(leaveOut), emptied) {
		if !strings.Contains(page, rule.reason) {
			t.Errorf("no word of %q", rule.reason)
		}
		for _, p := range rule.patterns {
			if !strings.Contains(page, "`/"+p+"`") {
				t.Errorf("no word of /%s", p)
			}
		}
	}
}

// TestAlwaysOut asks for what nobody gets.
func TestAlwaysOut(t *testing.T) {
	r, err := newRules([]string{"/", "*", "root/.config/viver/*", "proc"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"root/.config/viver/owner.key": true, "proc/1": true, "tmp/x": false, "root/.ssh/id_rsa": false} {
		if rule, _ := r.out(name); (rule != nil) != want {
			t.Errorf("%s: %v", name, rule)
		}
	}
	if _, err := newRules([]string{"["}); err == nil {
		t.Error("a bad pattern")
	}
}

// TestAnImageDoesNotHoldTheOneBefore builds again and again from a tree that the
// images lie in.
func TestAnImageDoesNotHoldTheOneBefore(t *testing.T) {
	needTool(t, "mksquashfs")
	root := writeTree(t, change(fakeFiles(t), file{name: "usr/share/noise", data: noise(1 << 20)}))
	var sizes []int64
	for _, name := range []string{"one", "two", "two"} {
		var notes []string
		c := Config{Source: root, Output: filepath.Join(root, "srv", name), Lib: fakeLib(t), Key: fakeKey(), Level: 1, Note: func(s string) { notes = append(notes, s) }}
		m, err := Build(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, m.RootFile().Size)
		if said := strings.Join(notes, "\n"); len(sizes) > 1 && !strings.Contains(said, "/srv/one") {
			t.Errorf("not said: %s", said)
		}
		if report, err := os.ReadFile(filepath.Join(c.Output, ReportFile)); err != nil || !strings.Contains(string(report), "\t/swapfile\n") {
			t.Errorf("report %q, %v", report, err)
		}
	}
	if sizes[2] > sizes[0]+4096 {
		t.Errorf("the image grows: %v", sizes)
	}
}
