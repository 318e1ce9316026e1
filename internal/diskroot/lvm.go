package diskroot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// group is a volume group of LVM.
type group struct {
	name, id string
	version  int64 // counts changes
	physical map[string]physical
	logical  map[string][]segment
}

// physical is a physical volume, with where its first extent begins, in bytes.
type physical struct {
	id    string
	start int64
}

// segment is a part of a logical volume.
type segment struct {
	kind         string
	start, size  int64  // in the logical volume, in bytes
	on           string // name of the physical volume
	offset       int64  // behind its first extent
	stripesCount int64
}

// parseGroup reads what pvck says of a physical volume: the metadata of all its group.
func parseGroup(out []byte) (*group, error) {
	const line = "\n  ---\n"
	_, text, _ := strings.Cut("\n"+string(out), line)
	text, _, _ = strings.Cut(text, line)
	all, err := parseText(text)
	if err != nil {
		return nil, err
	}
	for name, v := range all {
		if s, ok := v.(section); ok && s.text("id") != "" {
			return newGroup(name, s)
		}
	}
	return nil, errors.New("LVM finds no volume group in it")
}

func newGroup(name string, s section) (*group, error) {
	const largestExtent, mostExtents = 1 << 30, 1 << 32
	extent := s.number("extent_size")
	if extent <= 0 || extent > largestExtent {
		return nil, fmt.Errorf("the volume group %s has extents of %d sectors", name, extent)
	}
	g := &group{name, s.text("id"), s.number("seqno"), make(map[string]physical), make(map[string][]segment)}
	for pv := range s.section("physical_volumes") {
		p := s.section("physical_volumes").section(pv)
		g.physical[pv] = physical{p.text("id"), p.number("pe_start") * sector}
	}
	for lv := range s.section("logical_volumes") {
		l := s.section("logical_volumes").section(lv)
		if !slices.Contains(l.list("status"), any("VISIBLE")) {
			continue
		}
		for i := range l.number("segment_count") {
			p := l.section(fmt.Sprintf("segment%d", i+1))
			if p == nil {
				return nil, fmt.Errorf("the logical volume %s/%s lacks its segment %d", name, lv, i+1)
			}
			seg := segment{kind: p.text("type"), start: p.number("start_extent"), size: p.number("extent_count"), stripesCount: p.number("stripe_count")}
			if stripes := p.list("stripes"); len(stripes) == 2 {
				seg.on, _ = stripes[0].(string)
				seg.offset, _ = stripes[1].(int64)
			}
			for _, n := range []*int64{&seg.start, &seg.size, &seg.offset} {
				if *n < 0 || *n > mostExtents/extent*sector {
					return nil, fmt.Errorf("the logical volume %s/%s has a segment at %d", name, lv, *n)
				}
				*n *= extent * sector
			}
			g.logical[lv] = append(g.logical[lv], seg)
		}
	}
	return g, nil
}

// logical has the logical volumes that are whole by now, and were not before.
func (s *stack) logical(ctx context.Context) (list []volume) {
	groups := make(map[string]*group)
	for _, v := range s.volumes {
		if v.fsType != typeLVM || ctx.Err() != nil {
			continue
		}
		g, err := s.group(ctx, v)
		if err != nil {
			s.fail(fmt.Errorf("%s: %w", v, err))
			continue
		}
		if known := groups[g.id]; known == nil || known.version < g.version {
			groups[g.id] = g
		}
	}
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		g := groups[id]
		for _, lv := range slices.Sorted(maps.Keys(g.logical)) {
			v := volume{name: g.name + "/" + lv, vg: g.name, lv: lv}
			if s.knows(v) {
				continue
			}
			var err error
			if v.stretch, err = s.join(ctx, g, g.logical[lv]); err != nil {
				s.fail(fmt.Errorf("logical volume %s: %w", v.name, err))
				continue
			}
			list = append(list, v)
		}
	}
	return list
}

// fail notes what another layer may bring yet, once.
func (s *stack) fail(err error) {
	if !slices.ContainsFunc(s.failures, func(known error) bool { return known.Error() == err.Error() }) {
		s.failures = append(s.failures, err)
	}
}

func (s *stack) group(ctx context.Context, v volume) (*group, error) {
	f, name, err := headers(v)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out, err := s.run(ctx, nil, "pvck", "--driverloaded", "n", "--dump", "metadata", name)
	if err != nil {
		return nil, explainTool(err, "pvck", "lvm2")
	}
	return parseGroup(out)
}

// join finds the stretches of a logical volume: one is a stretch of the disk, several become a device.
func (s *stack) join(ctx context.Context, g *group, segments []segment) (stretch, error) {
	var parts []stretch
	end := int64(0)
	for _, seg := range segments {
		if seg.kind != "striped" || seg.stripesCount != 1 {
			return stretch{}, fmt.Errorf("it is of the kind %s; activate it (vgchange -ay %s) and name its device", seg.kind, g.name)
		}
		at := slices.IndexFunc(s.volumes, func(v volume) bool { return v.fsType == typeLVM && v.uuid == g.physical[seg.on].id })
		if at < 0 {
			return stretch{}, fmt.Errorf("a part of it is on a physical volume that is not here, %s; activate it (vgchange -ay %s) and name its device", g.physical[seg.on].id, g.name)
		}
		v := s.volumes[at]
		from := g.physical[seg.on].start + seg.offset
		if seg.start != end || seg.size == 0 || from < 0 || from > v.size || seg.size > v.size-from {
			return stretch{}, fmt.Errorf("%s was cut off: it has %d bytes, and the logical volume goes up to %d", v, v.size, from+seg.size)
		}
		end += seg.size
		part := stretch{v.file, v.offset + from, seg.size}
		if last := len(parts) - 1; last >= 0 && parts[last].file == part.file && parts[last].offset+parts[last].size == part.offset {
			parts[last].size += part.size
			continue
		}
		parts = append(parts, part)
	}
	switch len(parts) {
	case 0:
		return stretch{}, errors.New("it is empty")
	case 1:
		return parts[0], nil
	}
	return s.concatenate(ctx, parts)
}

// concatenate makes one device of several stretches.
func (s *stack) concatenate(ctx context.Context, parts []stretch) (stretch, error) {
	var table strings.Builder
	var size int64
	for _, part := range parts {
		device, err := s.disk.device(volume{stretch: part})
		if err != nil {
			return stretch{}, err
		}
		fmt.Fprintf(&table, "%d %d linear %s 0\n", size/sector, part.size/sector, device)
		size += part.size
	}
	f, err := inMemoryOf([]byte(table.String()))
	if err != nil {
		return stretch{}, err
	}
	defer f.Close()
	name := s.mapping()
	if _, err := s.run(ctx, []*os.File{f}, "dmsetup", "create", name, "--readonly", "/dev/fd/3"); err != nil {
		return stretch{}, fmt.Errorf("it is in %d parts: %w", len(parts), explainTool(err, "dmsetup", "dmsetup"))
	}
	device, err := s.opens(ctx, name)
	return stretch{device, 0, size}, err
}
