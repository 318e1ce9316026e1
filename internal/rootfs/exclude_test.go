package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/testlinux"
)

// swapFile is a file of 64 KiB with a mark at the end of a page of that size.
func swapFile(page int, mark string) string {
	b := make([]byte, 64<<10)
	copy(b[page-len(mark):], mark)
	return string(b)
}

// isoFile is as large as the smallest medium and has a volume label.
func isoFile(label string) string {
	b := make([]byte, media.SettingsSize)
	copy(b[16*2048:], "\x01CD001")
	copy(b[16*2048+40:], label)
	return string(b)
}

// excluded has one file for each way to stay out, and one like it that is in the
// image.
var excluded = []testlinux.File{
	{Name: "etc/fstab", Data: "UUID=1 / ext4 defaults 0 1\n/var/pages none swap sw 0 0\n/var/with\\040blank none swap sw\n"},
	{Name: "var/pages", Data: "by fstab"}, {Name: "var/with blank", Data: "by fstab"}, {Name: "var/pages.txt", Data: "no swap"},
	{Name: "srv/swap4k", Data: swapFile(4096, "SWAPSPACE2")}, {Name: "srv/swap64k", Data: swapFile(65536, "SWAPSPACE2")},
	{Name: "srv/old-swap", Data: swapFile(4096, "SWAP-SPACE")}, {Name: "srv/hibernated", Data: swapFile(4096, "LINHIB0001")},
	{Name: "srv/no-swap", Data: swapFile(4000, "SWAPSPACE2")},
	{Name: "srv/m.iso", Data: isoFile(media.Label)}, {Name: "srv/other.iso", Data: isoFile("DEBIAN")},
	{Name: "home/u/lab/" + manifest.File, Data: "{}"}, {Name: "home/u/lab/" + manifest.Metainfo, Data: "d"}, {Name: "home/u/lab/" + manifest.Root, Data: "hsqs"},
	{Name: "home/u/.lab.17.part/" + manifest.Root, Data: "hsqs"}, {Name: "home/u/web/" + manifest.File, Data: "{}"},
	{Name: "var/lib/docker/overlay2/l1/f", Data: "layer"}, {Name: "var/lib/docker/volumes/v/f", Data: "volume"},
	{Name: "system-update", Data: "/var/up"}, {Name: ".autorelabel", Data: ""}, {Name: "viver-data", Data: ""},
	{Name: "root/.ssh/id_ed25519", Data: "key"}, {Name: "root/.ssh/authorized_keys", Data: "who may log in"},
	{Name: "etc/iscsi/initiatorname.iscsi", Data: "iqn"}, {Name: "etc/iscsi/iscsid.conf", Data: "#"},
	{Name: "etc/machine-id", Data: "0123"}, {Name: "var/log/lastlog", Data: "anna"}, {Name: "var/log/syslog", Data: "a line"},
}

// TestExcludedFiles builds the same tree from a directory and from an archive.
func TestExcludedFiles(t *testing.T) {
	root := testlinux.Write(t, excluded)
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "-C", root, "-cf", archive, ".")
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
				tree, err := imagetree.Scan(context.Background(), source, &exclude.Choice{Keep: c.keep})
				if err != nil {
					t.Fatal(err)
				}
				defer tree.Close()
				var b bytes.Buffer
				if err := writeTar(context.Background(), tree, &b, t.TempDir(), ignore); err != nil {
					t.Fatal(err)
				}
				content := make(map[string]string)
				for _, m := range testlinux.Members(t, &b) {
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
				if err := tree.Report.Write(&report); err != nil {
					t.Fatal(err)
				}
				for _, f := range excluded {
					top := f.Name
					for _, dir := range []string{"home/u/lab", "home/u/.lab.17.part", "var/lib/docker/overlay2", "var/lib/docker/volumes"} {
						if strings.HasPrefix(f.Name, dir+"/") {
							top = dir
						}
					}
					if _, ok := content[f.Name]; !ok && !strings.Contains(report.String(), "\t/"+top+"\n") {
						t.Errorf("%s is not in the image, report:\n%s", f.Name, report.String())
					}
				}
			})
		}
	}
}
