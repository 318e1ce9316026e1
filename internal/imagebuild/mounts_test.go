package imagebuild

import "testing"

func TestWhatIsMountedBelongsToTheSystem(t *testing.T) {
	fstab := parseFstab([]byte(`# what the tree says
UUID=1 / ext4 defaults 0 1
UUID=2 /data xfs defaults 0 2
UUID=3 /.snapshots btrfs subvol=/@/.snapshots 0 0
/data/home /home none bind 0 0
/srv/a.iso /srv/iso ext4 loop,ro 0 0
`))
	disk := mount{kind: "ext4", source: "/dev/sda1", root: "/"}
	for _, c := range []struct {
		name, place string
		m, top      mount
		want        bool
	}{
		{"a partition in fstab", "data", mount{kind: "xfs", source: "/dev/sda2", root: "/"}, disk, true},
		{"a partition that fstab does not name", "mnt", mount{kind: "xfs", source: "/dev/sda2", root: "/"}, disk, false},
		{"a usual place", "boot/efi", mount{kind: "vfat", source: "/dev/sda1", root: "/"}, disk, true},
		{"a directory of another place", "var", mount{kind: "ext4", source: "/dev/sda1", root: "/data/var"}, disk, false},
		{"bound by fstab", "home", mount{kind: "ext4", source: "/dev/sda1", root: "/data/home"}, disk, false},
		{"a file that holds a file system", "boot", mount{kind: "ext4", source: "/dev/loop3", root: "/"}, disk, false},
		{"a tree that lies in a file", "boot", mount{kind: "ext4", source: "/dev/loop0p1", root: "/"}, mount{kind: "ext4", source: "/dev/loop0p2"}, true},
		{"such a file by fstab", "srv/iso", mount{kind: "ext4", source: "/dev/sda3", root: "/"}, disk, false},
		{"memory", "var", mount{kind: "tmpfs", source: "tmpfs", root: "/"}, disk, false},
		{"an overlay", "opt", mount{kind: "overlay", source: "overlay", root: "/"}, disk, false},
		{"a network disk", "home", mount{kind: "nfs4", source: "srv:/home", root: "/"}, disk, false},
		{"a subvolume in a usual place", "home", mount{kind: "btrfs", source: "/dev/sda1", root: "/@home"}, mount{kind: "btrfs"}, false},
		{"a subvolume where fstab says nothing", "opt", mount{kind: "btrfs", source: "/dev/sda1", root: "/@opt"}, mount{kind: "btrfs"}, true},
		{"another in an odd place", "mnt/old", mount{kind: "btrfs", source: "/dev/sda1", root: "/@"}, mount{kind: "btrfs"}, false},
		{"a data set of the pool", "var/lib", mount{kind: "zfs", source: "rpool/ROOT/x/var/lib"}, mount{kind: "zfs", source: "rpool/ROOT/x"}, true},
		{"of another pool", "tank", mount{kind: "zfs", source: "tank/x"}, mount{kind: "zfs", source: "rpool/ROOT/x"}, false},
		{"a snapshot", "x/.zfs/snapshot/1", mount{kind: "zfs", source: "rpool/x@1"}, mount{kind: "zfs", source: "rpool/ROOT/x"}, false},
		{"a container's file", "etc/resolv.conf", mount{kind: "ext4", source: "/dev/sda1", root: "/var/lib/x"}, mount{kind: "overlay"}, true},
	} {
		if got := c.m.isSystem(c.place, c.top, fstab); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
