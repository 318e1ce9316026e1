package imagesource

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/livesnapshot"
	"viver.lan/internal/testlinux"
)

// mountedBtrfs mounts a new btrfs with the subvolumes @ and @home as a machine has them.
func mountedBtrfs(t *testing.T) (root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	if out, err := exec.Command("losetup", "-f").CombinedOutput(); err != nil {
		t.Skipf("no loop devices here: %s", out)
	}
	dir := t.TempDir()
	t.Cleanup(func() { testlinux.Run(t, "sh", "-c", "cd "+dir+"; umount -R root") })
	testlinux.Run(t, "sh", "-ec", "cd "+dir+`
export PATH=$PATH:/usr/sbin:/sbin
mkdir top root
truncate -s 150M x; mkfs.btrfs -q x
mount -o loop x top; btrfs -q subvolume create top/@; btrfs -q subvolume create top/@home; umount top
mount -o loop,subvol=@ x root
mkdir -p root/etc root/home root/proc root/out/.x.part root/tmp; btrfs -q subvolume create root/nested
mount -o subvol=@home "$(findmnt -n -o SOURCE root | sed 's/\[.*//')" root/home
mount -t tmpfs none root/proc
echo "LABEL=x /home btrfs subvol=@home" >root/etc/fstab
echo before >root/etc/motd; mkdir root/home/anna; echo before >root/home/anna/x; echo 1 >root/proc/cpuinfo; echo 1 >root/nested/x; echo 1 >root/out/.x.part/y
`)
	return filepath.Join(dir, "root")
}

// What is written while the running system is read is not in its tree; the snapshots are gone behind it, and so are
// those of a build that was killed.
func TestRunningSystemFromASnapshot(t *testing.T) {
	root := mountedBtrfs(t)
	killed := filepath.Join(root, livesnapshot.Prefix+"1")
	testlinux.Run(t, "mkdir", "-m", "700", killed, killed+"2") // the second was killed before its snapshot
	testlinux.Run(t, "btrfs", "-q", "subvolume", "snapshot", "-r", root, filepath.Join(killed, livesnapshot.Inside))
	s := &Source{name: root}
	if err := s.openRunning(t.Context(), root, filepath.Join(root, "home/anna")); err != nil { // it works in the system itself
		t.Fatal(err)
	}
	if s.Kind != "the running system, from a snapshot" || len(s.Notes) > 0 {
		t.Errorf("it is %s, notes %q", s.Kind, s.Notes)
	}
	testlinux.Run(t, "sh", "-ec", "cd "+root+"; echo after >etc/motd; echo after >home/anna/x; echo x >home/new")
	tree, err := s.Scan(t.Context(), nil, filepath.Join(root, "out/.x.part"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"etc/motd": "before\n", "home/anna/x": "before\n"} {
		if data, err := tree.ReadFile(name); err != nil || string(data) != want {
			t.Errorf("%s has %q, %v", name, data, err)
		}
	}
	_ = tree.Walk(func(name string, _ *imagetree.Entry) error {
		if strings.Contains(name, livesnapshot.Prefix) {
			t.Errorf("%s is in the tree", name)
		}
		return nil
	})
	for _, name := range []string{"home/new", "out/.x.part", "proc/cpuinfo", "nested/x"} {
		if _, err := tree.Open(name); err == nil {
			t.Errorf("%s is in the tree", name)
		}
	}
	var report strings.Builder
	if err := tree.Report.Write(&report); err != nil || !strings.Contains(report.String(), "/nested (subvolume)") || strings.Contains(report.String(), livesnapshot.Prefix) {
		t.Errorf("%v, the report:\n%s", err, report.String())
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, at := range []string{root, filepath.Join(root, "home")} {
		if left, _ := filepath.Glob(filepath.Join(at, ".*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// What a person makes who can write to the top of a subvolume, to have root delete or read what is another's, stays
// as it is: links, directories that are not root's, and subvolumes.
func TestSnapshotsOfOthersAreNotDeleted(t *testing.T) {
	root := mountedBtrfs(t)
	testlinux.Run(t, "sh", "-ec", "cd "+root+"/home; P="+livesnapshot.Prefix+" I="+livesnapshot.Inside+`
mkdir -m 700 ../victim $P''own $P''open; chown 12345 $P''own; chmod 770 $P''open
for dir in ../victim $P''own $P''open; do btrfs -q subvolume create $dir/$I; done
btrfs -q subvolume create $P''top; chmod 700 $P''top; btrfs -q subvolume create $P''top/$I; chown 12345 .
ln -s ../victim $P''link; ln -s ../victim/$I $P''inside; mkfifo $P''fifo`)
	s := &Source{name: root}
	if err := s.openRunning(t.Context(), root, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if len(s.Notes) > 0 {
		t.Errorf("notes %q", s.Notes)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"own/", "open/", "top/", "link/", "../victim/"} {
		at := filepath.Join(root, "home", livesnapshot.Prefix+name)
		if name == "../victim/" {
			at = filepath.Join(root, "victim")
		}
		if _, err := os.Stat(filepath.Join(at, livesnapshot.Inside)); err != nil {
			t.Error(err)
		}
	}
	if list, err := filepath.Glob(filepath.Join(root, "home", livesnapshot.Prefix+"*")); len(list) != 6 {
		t.Errorf("%v, %v: 6 of these are a stranger's", list, err)
	}
}

// A build that ends while the snapshots are made leaves none.
func TestSnapshotEndsWithItsContext(t *testing.T) {
	root := mountedBtrfs(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &Source{name: root}
	if err := s.openRunning(ctx, root, t.TempDir()); err == nil {
		t.Error("it opened")
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInside(t *testing.T) {
	if got := inside("/w", "/", []string{"/srv/none", "/a/../b/none"}); strings.Join(got, " ") != "/w/srv/none /w/b/none" {
		t.Error(got)
	}
	if got := inside("/w", "/mnt/none", []string{"/srv"}); len(got) > 0 {
		t.Error(got)
	}
}
