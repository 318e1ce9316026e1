package livesnapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/hosttool"
	"viver.lan/internal/mountinfo"
)

// thinPrefix is what the names of snapshots of LVM begin with, before the number of the process.
const thinPrefix = "viver-snapshot-"

// thinOptions are those with which the snapshot of a file system is mounted: the file system was frozen for
// it, and has nothing in its journal.
func thinOptions(fsType string) (options string, ok bool) {
	switch fsType {
	case "ext4":
		return "noload", true
	case "xfs":
		return "norecovery,nouuid", true
	}
	return "", false
}

// isThin reports whether a file system is on a thin volume, of which a snapshot takes no space.
func isThin(ctx context.Context, m mountinfo.Mount) bool {
	if _, ok := thinOptions(m.Type); !ok || m.Root != "/" || !filepath.IsAbs(m.Source) || !isOfLVM(m.Device) {
		return false
	}
	out, err := hosttool.Output(ctx, nil, "lvs", "--noheadings", "--options", "segtype", m.Source)
	return err == nil && strings.TrimSpace(string(out)) == "thin"
}

// isOfLVM reports whether a device, by its numbers, is a logical volume.
func isOfLVM(device string) bool {
	uuid, err := os.ReadFile("/sys/dev/block/" + device + "/dm/uuid")
	return err == nil && strings.HasPrefix(string(uuid), "LVM-")
}

// takeThin makes a snapshot of a thin volume, beside it.
func (s *Snapshot) takeThin(ctx context.Context, m mountinfo.Mount) (made, error) {
	out, err := hosttool.Output(ctx, nil, "lvs", "--noheadings", "--options", "vg_name,lv_name", m.Source)
	if err != nil {
		return made{}, err
	}
	names := strings.Fields(string(out))
	if len(names) != 2 {
		return made{}, fmt.Errorf("lvs says %q of %s, where the names of a group and a volume are expected", out, m.Source)
	}
	group, volume := names[0], names[1]
	removeOld(ctx, group)
	name := fmt.Sprintf("%s/%s%d-%d", group, thinPrefix, os.Getpid(), len(s.made))
	_, err = hosttool.Output(ctx, nil, "lvcreate", "--quiet", "--snapshot", "--name", name, "--permission", "r", "--setactivationskip", "n", "--activate", "y", group+"/"+volume)
	if err != nil {
		return made{}, err
	}
	return made{path: "/dev/" + name, delete: func() error { return removeThin(context.Background(), name) }}, nil
}

func mountThin(device, at, fsType string) error {
	options, _ := thinOptions(fsType)
	if err := unix.Mount(device, at, fsType, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

// removeOld removes the snapshots of a group whose processes are gone.
func removeOld(ctx context.Context, group string) {
	out, err := hosttool.Output(ctx, nil, "lvs", "--noheadings", "--options", "lv_name", group)
	if err != nil {
		return // what is left takes no more space than before
	}
	for _, name := range strings.Fields(string(out)) {
		process, ok := thinProcess(name)
		if _, err := os.Stat("/proc/" + strconv.Itoa(process)); ok && err != nil {
			_ = removeThin(ctx, group+"/"+name) // the next build tries again
		}
	}
}

// thinProcess is the number of the process that made a snapshot of that name.
func thinProcess(name string) (process int, ok bool) {
	rest, ok := strings.CutPrefix(name, thinPrefix)
	number, _, _ := strings.Cut(rest, "-")
	process, err := strconv.Atoi(number)
	return process, ok && err == nil && process > 0
}

func removeThin(ctx context.Context, name string) error {
	if _, err := hosttool.Output(ctx, nil, "lvremove", "--quiet", "--yes", name); err != nil {
		return fmt.Errorf("%w; remove it with: lvremove %s", err, name)
	}
	return nil
}
