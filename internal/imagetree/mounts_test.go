package imagetree

import (
	"testing"

	"viver.lan/internal/mountinfo"
)

func TestIsSystem(t *testing.T) {
	table := mountinfo.ParseTable([]byte(`# what the tree says
UUID=1 / ext4 defaults 0 1
UUID=2 /data xfs defaults 0 2
UUID=3 /.snapshots btrfs subvol=/@/.snapshots 0 0
/data/home /home none bind 0 0
/srv/a.iso /srv/iso ext4 loop,ro 0 0
`))
	disk := mountinfo.Mount{Type: "ext4", Source: "/dev/sda1", Root: "/"}
	for _, c := range []struct {
		name, place string
		m, top      mountinfo.Mount
		want        bool
	}{
		{"a partition in fstab", "data", mountinfo.Mount{Type: "xfs", Source: "/dev/sda2", Root: "/"}, disk, true},
		{"a partition that fstab does not name", "mnt", mountinfo.Mount{Type: "xfs", Source: "/dev/sda2", Root: "/"}, disk, false},
		{"a usual place", "boot/efi", mountinfo.Mount{Type: "vfat", Source: "/dev/sda1", Root: "/"}, disk, true},
		{"a directory of another place", "var", mountinfo.Mount{Type: "ext4", Source: "/dev/sda1", Root: "/data/var"}, disk, false},
		{"bound by fstab", "home", mountinfo.Mount{Type: "ext4", Source: "/dev/sda1", Root: "/data/home"}, disk, false},
		{"a file that holds a file system", "boot", mountinfo.Mount{Type: "ext4", Source: "/dev/loop3", Root: "/"}, disk, false},
		{"a tree that lies in a file", "boot", mountinfo.Mount{Type: "ext4", Source: "/dev/loop0p1", Root: "/"}, mountinfo.Mount{Type: "ext4", Source: "/dev/loop0p2"}, true},
		{"such a file by fstab", "srv/iso", mountinfo.Mount{Type: "ext4", Source: "/dev/sda3", Root: "/"}, disk, false},
		{"memory", "var", mountinfo.Mount{Type: "tmpfs", Source: "tmpfs", Root: "/"}, disk, false},
		{"an overlay", "opt", mountinfo.Mount{Type: "overlay", Source: "overlay", Root: "/"}, disk, false},
		{"a network disk", "home", mountinfo.Mount{Type: "nfs4", Source: "srv:/home", Root: "/"}, disk, false},
		{"a subvolume in a usual place", "home", mountinfo.Mount{Type: "btrfs", Source: "/dev/sda1", Root: "/@home"}, mountinfo.Mount{Type: "btrfs"}, false},
		{"a subvolume where fstab says nothing", "opt", mountinfo.Mount{Type: "btrfs", Source: "/dev/sda1", Root: "/@opt"}, mountinfo.Mount{Type: "btrfs"}, true},
		{"another in an odd place", "mnt/old", mountinfo.Mount{Type: "btrfs", Source: "/dev/sda1", Root: "/@"}, mountinfo.Mount{Type: "btrfs"}, false},
		{"a data set of the pool", "var/lib", mountinfo.Mount{Type: "zfs", Source: "rpool/ROOT/x/var/lib"}, mountinfo.Mount{Type: "zfs", Source: "rpool/ROOT/x"}, true},
		{"of another pool", "tank", mountinfo.Mount{Type: "zfs", Source: "tank/x"}, mountinfo.Mount{Type: "zfs", Source: "rpool/ROOT/x"}, false},
		{"a snapshot", "x/.zfs/snapshot/1", mountinfo.Mount{Type: "zfs", Source: "rpool/x@1"}, mountinfo.Mount{Type: "zfs", Source: "rpool/ROOT/x"}, false},
		{"a container's file", "etc/resolv.conf", mountinfo.Mount{Type: "ext4", Source: "/dev/sda1", Root: "/var/lib/x"}, mountinfo.Mount{Type: "overlay"}, true},
	} {
		if got := isSystem(c.m, c.place, c.top, table); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
