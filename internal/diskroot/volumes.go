package diskroot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"viver.lan/internal/hosttool"
)

// stretch is a part of a disk or of the file of one.
type stretch struct {
	file         *os.File
	offset, size int64 // in bytes
}

// volume is a partition, or all of a disk that has none, or what lies in one, and what blkid says of it.
type volume struct {
	stretch
	number      int    // of the partition, as Linux counts; 0 for all of the disk
	name        string // what --root calls it, "" for its number
	vg, lv      string // of LVM
	luks        string // the UUID of the LUKS that it lies in
	array       string // the name of the RAID that it is
	partUUID    string
	partLabel   string
	fsType      string // such as ext4 or crypto_LUKS; "" when nothing is known
	uuid, label string
}

// String names the volume to people.
func (v volume) String() string {
	what := v.fsType
	if what == "" {
		what = "nothing known"
	}
	if v.label != "" {
		what += fmt.Sprintf(" %q", v.label)
	}
	switch {
	case v.lv != "":
		return fmt.Sprintf("logical volume %s: %s", v.name, what)
	case v.luks != "":
		what = "encrypted, in it " + what
	case v.array != "":
		what = "a mirror, in it " + what
	}
	if v.number == 0 {
		return what
	}
	return fmt.Sprintf("partition %d: %s", v.number, what)
}

// ref is what --root calls it.
func (v volume) ref() string { return cmp.Or(v.name, strconv.Itoa(v.number)) }

// wholeOf is all of a disk.
func wholeOf(f *os.File) (volume, error) {
	size, err := f.Seek(0, io.SeekEnd)
	return volume{stretch: stretch{f, 0, size}}, err
}

// sector is the unit in which partx counts, whatever the disk's is.
const sector = 512

// listVolumes lists the partitions of a disk, and what is in them.
func listVolumes(ctx context.Context, f *os.File) ([]volume, error) {
	all, err := wholeOf(f)
	if err != nil {
		return nil, err
	}
	if err := all.probe(ctx, f); err != nil {
		return nil, err
	}
	if all.fsType != "" {
		return []volume{all}, nil
	}
	out, err := hosttool.Output(ctx, []*os.File{f}, "partx", "--pairs", "--output", "NR,START,SECTORS,UUID,NAME", "/dev/fd/3")
	if err != nil {
		return nil, fmt.Errorf("read its partition table: %w", err)
	}
	list := parsePartitions(out, all.size)
	for i := range list {
		list[i].file = f
		if err := list[i].probe(ctx, f); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// pair is a value as partx prints it.
var pair = regexp.MustCompile(`([A-Z]+)="([^"]*)"`)

// parsePartitions reads the lines of partx. What lies outside of the disk is left out.
func parsePartitions(out []byte, size int64) []volume {
	var list []volume
	for line := range strings.Lines(string(out)) {
		values := make(map[string]string)
		for _, m := range pair.FindAllStringSubmatch(line, -1) {
			values[m[1]] = unescape(m[2])
		}
		number, err1 := strconv.Atoi(values["NR"])
		start, err2 := strconv.ParseInt(values["START"], 10, 64)
		sectors, err3 := strconv.ParseInt(values["SECTORS"], 10, 64)
		if errors.Join(err1, err2, err3) != nil || start <= 0 || sectors <= 0 || start >= size/sector || sectors > size/sector-start {
			continue
		}
		list = append(list, volume{stretch: stretch{nil, start * sector, sectors * sector}, number: number, partUUID: values["UUID"], partLabel: values["NAME"]})
	}
	return list
}

// hexByte is how partx and blkid write a byte that would spoil a line.
var hexByte = regexp.MustCompile(`\\x[0-9a-fA-F]{2}`)

func unescape(s string) string {
	return hexByte.ReplaceAllStringFunc(s, func(x string) string {
		n, _ := strconv.ParseUint(strings.TrimPrefix(x, `\x`), 16, 8) // two digits
		return string([]byte{byte(n)})
	})
}

// probe asks blkid what is in the volume.
func (v *volume) probe(ctx context.Context, f *os.File) error {
	const foundNothing, foundSeveral = 2, 8
	out, err := hosttool.Output(ctx, []*os.File{f}, "blkid", "--probe", "--output", "udev",
		"--offset", strconv.FormatInt(v.offset, 10), "--size", strconv.FormatInt(v.size, 10), "/dev/fd/3")
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == foundNothing || exit.ExitCode() == foundSeveral) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out what is in it: %w", err)
	}
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		switch value = unescape(value); key {
		case "ID_FS_TYPE":
			v.fsType = value
		case "ID_FS_UUID":
			v.uuid = value
		case "ID_FS_LABEL_ENC":
			v.label = value
		}
	}
	return nil
}

// is reports whether the volume is what fstab(5) calls source. rootDisk is what the same table calls
// the disk of the root, such as /dev/sda.
func (v volume) is(source, rootDisk string) bool {
	for prefix, name := range map[string]string{
		"UUID=": v.uuid, "LABEL=": v.label, "PARTUUID=": v.partUUID, "PARTLABEL=": v.partLabel,
		"/dev/disk/by-uuid/": v.uuid, "/dev/disk/by-label/": v.label, "/dev/disk/by-partuuid/": v.partUUID, "/dev/disk/by-partlabel/": v.partLabel,
	} {
		if rest, ok := strings.CutPrefix(source, prefix); ok {
			return name != "" && strings.EqualFold(unescape(strings.Trim(rest, `"`)), name)
		}
	}
	switch {
	case v.lv != "":
		return source == "/dev/"+v.vg+"/"+v.lv || source == "/dev/mapper/"+doubled(v.vg)+"-"+doubled(v.lv)
	case v.array != "":
		_, name, _ := strings.Cut(v.array, ":") // of the machine
		name = cmp.Or(name, v.array)
		return source == "/dev/md/"+name || source == "/dev/md"+name
	case v.luks != "":
		return strings.EqualFold(source, inLUKS+v.luks)
	}
	disk, number := splitDevice(source)
	return v.number > 0 && number == v.number && disk == rootDisk
}

// inLUKS is before the UUID of a LUKS, in place of the name that a crypttab gives what is in it.
const inLUKS = "LUKS="

// parseCrypttab has the UUID of the LUKS behind each device of a crypttab(5) that names it.
func parseCrypttab(text []byte) map[string]string {
	found := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		for _, prefix := range []string{"UUID=", "/dev/disk/by-uuid/"} {
			if uuid, ok := strings.CutPrefix(fields[1], prefix); ok {
				found["/dev/mapper/"+fields[0]] = strings.Trim(uuid, `"`)
			}
		}
	}
	return found
}

// doubled writes a name as the device mapper has it where a hyphen divides two.
func doubled(name string) string { return strings.ReplaceAll(name, "-", "--") }

// partitionDevice are the names of partitions that say of which disk they are.
var partitionDevice = regexp.MustCompile(`^(/dev/(?:[shv]d[a-z]+|xvd[a-z]+)|/dev/(?:nvme\d+n\d+|mmcblk\d+)p)(\d+)$`)

// splitDevice divides the name of a partition's device.
func splitDevice(device string) (disk string, number int) {
	m := partitionDevice.FindStringSubmatch(device)
	if m == nil {
		return "", 0
	}
	number, _ = strconv.Atoi(m[2]) // digits
	return m[1], number
}
