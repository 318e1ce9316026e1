package diskroot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// member is what mdadm says of a disk of a RAID.
type member struct {
	version, uuid, name, level string
	disks                      int
	features                   uint64
	offset, size               int64 // of the data, in bytes
	events                     uint64
	role, state, updated       string
}

// mirrors has the data of each mirror (RAID1), which one of its disks has whole. Of two disks of one mirror
// that with the later state counts.
func (s *stack) mirrors(ctx context.Context, volumes []volume) (list []volume) {
	type half struct {
		member
		on volume
	}
	var halves []half
	for _, v := range volumes {
		if v.fsType != typeRAID || ctx.Err() != nil {
			continue
		}
		m, err := s.examine(ctx, v)
		if err == nil {
			err = m.isReadable(v.size)
		}
		if err != nil {
			s.failures = append(s.failures, fmt.Errorf("%s: %w", v, err))
			continue
		}
		at := slices.IndexFunc(halves, func(other half) bool { return other.uuid == m.uuid })
		switch {
		case at < 0:
			halves = append(halves, half{m, v})
		case halves[at].events < m.events:
			halves[at] = half{m, v}
		}
	}
	for _, h := range halves {
		s.notes = append(s.notes, fmt.Sprintf("%s is one disk of a mirror (RAID1) of %d, %q; it is read as it was at its last change, %s", h.on, h.disks, h.name, h.updated))
		list = append(list, volume{stretch: stretch{h.on.file, h.on.offset + h.offset, h.size}, number: h.on.number, name: h.on.ref(), array: h.name})
	}
	return list
}

func (s *stack) examine(ctx context.Context, v volume) (member, error) {
	f, name, err := headers(v)
	if err != nil {
		return member{}, err
	}
	defer f.Close()
	out, err := s.run(ctx, nil, "mdadm", "--examine", name)
	if err != nil {
		return member{}, explainTool(err, "mdadm", "mdadm")
	}
	return parseMember(out)
}

// parseMember reads what mdadm --examine says.
func parseMember(out []byte) (m member, err error) {
	number := func(value string) (n int64) {
		first, _, _ := strings.Cut(value, " ")
		n, err2 := strconv.ParseInt(first, 0, 64)
		if err2 != nil || n < 0 {
			err = errors.Join(err, fmt.Errorf("mdadm says %q where a number is expected", value))
		}
		return n
	}
	const largest = 1 << 50 // KiB and sectors of it are still numbers of bytes
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " : ")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Version":
			m.version = value
		case "Array UUID", "UUID":
			m.uuid, _, _ = strings.Cut(value, " ")
		case "Name":
			m.name, _, _ = strings.Cut(value, " ")
		case "Preferred Minor":
			m.name = value
		case "Raid Level":
			m.level = value
		case "Raid Devices":
			m.disks = int(number(value))
		case "Feature Map":
			m.features = uint64(number(value))
		case "Data Offset":
			m.offset = min(number(value), largest) * sector
		case "Array Size":
			m.size = min(number(value), largest) << 10
		case "Events":
			m.events = uint64(number(value[strings.LastIndex(value, ".")+1:])) // the oldest version has a 0. before it
		case "Device Role":
			m.role = value
		case "State":
			m.state = value
		case "Update Time":
			m.updated = value
		}
	}
	if err == nil && (m.uuid == "" || m.level == "") {
		err = errors.New("mdadm finds no RAID in it")
	}
	return m, err
}

// isReadable says why one disk is not enough, or not right. size is that of the disk.
func (m member) isReadable(size int64) error {
	const harmless = 0x1 | 0x8 | 0x100 // a bitmap, bad blocks, a bitmap elsewhere
	switch {
	case m.level != "raid1":
		return fmt.Errorf("it is one of %d disks of a RAID of the kind %s, which one disk does not have; assemble all (mdadm --assemble --readonly /dev/md/lab DISK DISK ...) and name /dev/md/lab", m.disks, m.level)
	case strings.HasPrefix(m.role, "spare") || m.features&^harmless != 0:
		return errors.New("it is a spare disk of a mirror, or one that was being filled; name another disk of it")
	case m.size <= 0 || m.offset > size || m.size > size-m.offset:
		return fmt.Errorf("it was cut off: the mirror has %d bytes, the disk %d", m.size, size)
	}
	return nil
}
