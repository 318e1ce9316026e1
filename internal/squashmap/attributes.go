package squashmap

import (
	"errors"
	"fmt"
)

const (
	idSize = 4
	// xattrHeadSize and xattrIDSize are those of the table of extended attributes.
	xattrHeadSize, xattrIDSize = 16, 16
	// elsewhere is the bit of an attribute's type that says that its value is elsewhere.
	elsewhere = 1 << 8
	// maxXattrIDs bounds how many files may have attributes of their own.
	maxXattrIDs = 1 << 20
	// maxAttributes bounds those of one file, in bytes.
	maxAttributes = 1 << 20
)

// IDs returns the table of the numbers of users and groups.
func (fs *FS) IDs() ([]uint32, error) {
	t := fs.tables
	ids := make([]uint32, 0, t.super.ids)
	for len(ids) < int(t.super.ids) {
		s, err := t.indexed(t.super.idTable, len(ids), idSize)
		if err != nil {
			return nil, err
		}
		for len(s.rest) >= idSize && len(ids) < int(t.super.ids) {
			ids = append(ids, s.u32())
		}
		if s.err != nil || len(ids)*idSize%metadataSize != 0 && len(ids) < int(t.super.ids) {
			return nil, errors.Join(errors.New("the table of users and groups ends too early"), s.err)
		}
	}
	return ids, nil
}

// indexed returns a stream that begins with item i of a table, whose blocks a list of
// places leads to.
func (t *tables) indexed(list int64, i, size int) (*stream, error) {
	perBlock := metadataSize / size
	pointer, err := t.readAt(list+int64(i/perBlock)*8, 8)
	if err != nil {
		return nil, err
	}
	s := t.stream(parsePointer(pointer), 0, i%perBlock*size)
	return s, s.err
}

// XattrTable is the table of extended attributes as it is stored. All places in it count from
// its beginning.
type XattrTable struct {
	// Pairs are the blocks with names and values, IDs the list of what each file has.
	Pairs, IDs []byte
}

// xattrHead is what the superblock leads to.
type xattrHead struct {
	pairs int64
	count uint32
	list  int64 // of the places of blocks
}

func (t *tables) xattrHead() (h xattrHead, err error) {
	b, err := t.readAt(t.super.xattrTable, xattrHeadSize)
	if err != nil {
		return h, err
	}
	// Its last four bytes mean nothing.
	return xattrHead{parsePointer(b), uint32(parsePointer(b[8:])), t.super.xattrTable + xattrHeadSize}, nil
}

// XattrTable returns the table, nil if there is none.
func (fs *FS) XattrTable() (*XattrTable, error) {
	t := fs.tables
	if t.super.xattrTable < 0 {
		return nil, nil
	}
	h, err := t.xattrHead()
	if err != nil || h.count == 0 {
		return nil, err
	}
	if h.count > maxXattrIDs {
		return nil, fmt.Errorf("more than %d files have extended attributes of their own", maxXattrIDs)
	}
	first, err := t.readAt(h.list, 8)
	if err != nil {
		return nil, err
	}
	end := parsePointer(first)
	if h.pairs < 0 || end < h.pairs || end > t.super.bytesUsed {
		return nil, errors.New("the table of extended attributes lies beyond the end")
	}
	out := &XattrTable{}
	if out.Pairs, err = t.readAt(h.pairs, int(end-h.pairs)); err != nil {
		return nil, err
	}
	for i := 0; i < int(h.count); {
		s, err := t.indexed(h.list, i, xattrIDSize)
		if err != nil {
			return nil, err
		}
		n := min(int(h.count)-i, metadataSize/xattrIDSize)
		out.IDs = append(out.IDs, s.next(n*xattrIDSize)...)
		if i += n; s.err != nil {
			return nil, s.err
		}
	}
	return out, nil
}

// Attributes returns the extended attributes of a file, as names and values one after the
// other, in their order.
func (fs *FS) Attributes(in *Inode) ([]string, error) {
	t := fs.tables
	if in.Xattr == None || t.super.xattrTable < 0 {
		return nil, nil
	}
	h, err := t.xattrHead()
	if err != nil {
		return nil, err
	}
	if in.Xattr >= h.count {
		return nil, fmt.Errorf("there are no attributes %d", in.Xattr)
	}
	s, err := t.indexed(h.list, int(in.Xattr), xattrIDSize)
	if err != nil {
		return nil, err
	}
	place, count := s.u64(), s.u32()
	if s.err != nil {
		return nil, s.err
	}
	s = t.stream(h.pairs, int64(place>>16), int(place&0xffff))
	var list []string
	left := maxAttributes
	for range count {
		name, value := parseAttribute(s, h, &left)
		if s.err != nil {
			return nil, s.err
		}
		list = append(list, name, value)
	}
	return list, nil
}

// parseAttribute reads one attribute. It fails when they have more than left bytes.
func parseAttribute(s *stream, h xattrHead, left *int) (name, value string) {
	kind := s.u16()
	name = take(s, int(s.u16()), left)
	prefix := []string{"user.", "trusted.", "security."}
	if k := int(kind &^ elsewhere); k < len(prefix) {
		name = prefix[k] + name
	} else {
		s.fail(fmt.Errorf("an attribute has the type %d", kind))
	}
	size := s.u32()
	if kind&elsewhere == 0 {
		return name, take(s, int(size), left)
	}
	place := s.u64()
	if s.err != nil {
		return "", ""
	}
	v := s.tables.stream(h.pairs, int64(place>>16), int(place&0xffff))
	value = take(v, int(v.u32()), left)
	if v.err != nil {
		s.fail(v.err)
	}
	return name, value
}

func take(s *stream, n int, left *int) string {
	if *left -= n + 1; *left < 0 {
		s.fail(fmt.Errorf("a file has more than %d bytes of attributes", maxAttributes))
		return ""
	}
	return string(s.next(n))
}
