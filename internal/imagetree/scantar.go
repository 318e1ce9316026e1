package imagetree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"viver.lan/internal/exclude"
	"viver.lan/internal/sparsetar"
)

// Archive is an uncompressed tar archive.
type Archive struct {
	Name string // for errors
	Data io.ReaderAt
	Size int64 // in bytes
}

// ScanTar indexes the tree in an archive, which has to stay open as long as the tree.
// choice is that of Scan.
func ScanTar(ctx context.Context, a Archive, choice *exclude.Choice) (*Tree, error) {
	return scan(choice, func(t *Tree) error { return t.indexTar(ctx, a) })
}

func (t *Tree) scanTar(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	t.close = f.Close
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return t.indexTar(ctx, Archive{Data: f, Size: fi.Size()})
}

func (t *Tree) indexTar(ctx context.Context, a Archive) error {
	return eachMember(ctx, a, func(m member) { t.addTar(m, nil) })
}

var errTar = errors.New("not a whole tar archive")

// eachMember calls do for the members of an archive that is whole.
func eachMember(ctx context.Context, a Archive, do func(member)) error {
	f := io.NewSectionReader(a.Data, 0, a.Size)
	r := tar.NewReader(f)
	for begin := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return tarEnds(f)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errTar, err)
		}
		// The reader takes exactly the headers, so the file stands at the data.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		m, err := readMember(f, begin, at, h)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errTar, h.Name, err)
		}
		if m.stored > a.Size-at {
			return fmt.Errorf("%w: it ends within %s", errTar, h.Name)
		}
		do(m)
		begin = (at + m.stored + sparsetar.BlockSize - 1) / sparsetar.BlockSize * sparsetar.BlockSize
	}
}

// tarEnds checks for the two blocks of zeros that end an archive: package tar
// also takes one that was cut off between two members.
func tarEnds(f *io.SectionReader) error {
	var end [1024]byte
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if at >= int64(len(end)) {
		if _, err := f.ReadAt(end[:], at-int64(len(end))); err != nil {
			return err
		}
		if end == [len(end)]byte{} {
			return nil
		}
	}
	return fmt.Errorf("%w: its end is missing", errTar)
}

// member is one member of an archive.
type member struct {
	header *tar.Header
	data   io.ReaderAt // of a regular file, holes as zeros
	// segments are where it has data; nil when it has all of it.
	segments []sparsetar.Segment
	// stored is what the archive holds of it, in bytes.
	stored int64
}

// readMember finds out where a member's content lies: begin is where its headers
// begin, at where package tar has read to.
func readMember(f io.ReaderAt, begin, at int64, h *tar.Header) (member, error) {
	m := member{header: h}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		// Package tar takes the size of links and the like for what it means.
		if !isHeaderOnly(h.Typeflag) {
			m.stored = h.Size
		}
		return m, nil
	}
	segments, isSparse, err := readSparseMap(f, begin, at, h)
	if err != nil {
		return m, err
	}
	if !isSparse {
		m.data, m.stored = io.NewSectionReader(f, at, h.Size), h.Size
		return m, nil
	}
	m.stored = sparsetar.Bytes(segments)
	m.data = newPacked(f, at, segments, h.Size)
	m.segments = sparsetar.Worth(segments, h.Size)
	return m, nil
}

// isHeaderOnly reports whether no content follows a header, whatever its size
// says.
func isHeaderOnly(typeflag byte) bool {
	switch typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return true
	}
	return false
}

// readSparseMap reads the map of a member with holes, in whichever of the four
// forms it comes.
func readSparseMap(f io.ReaderAt, begin, at int64, h *tar.Header) (segments []sparsetar.Segment, isSparse bool, err error) {
	major, minor := h.PAXRecords["GNU.sparse.major"], h.PAXRecords["GNU.sparse.minor"]
	text, hasText := h.PAXRecords["GNU.sparse.map"]
	if h.Typeflag == tar.TypeReg && !(major == "1" && minor == "0") && !hasText {
		return nil, false, nil
	}
	if hasText && major != "1" {
		segments, err = sparsetar.ParseText(text, h.Size)
		return segments, true, err
	}
	head, err := mainHeader(io.NewSectionReader(f, begin, at-begin))
	if err != nil {
		return nil, true, err
	}
	if h.Typeflag == tar.TypeGNUSparse {
		segments, err = sparsetar.ReadGNU(io.NewSectionReader(f, begin+head, at-begin-head), h.Size)
		return segments, true, err
	}
	head += sparsetar.BlockSize
	segments, length, err := sparsetar.ReadMap(io.NewSectionReader(f, begin+head, at-begin-head), h.Size)
	if err == nil && head+length != at-begin {
		err = fmt.Errorf("%w: %d bytes long, want %d", sparsetar.ErrMap, length, at-begin-head)
	}
	return segments, true, err
}

// addTar adds one member; l is the layer that it is of, nil of an archive alone.
func (t *Tree) addTar(m member, l *layer) {
	h := *m.header
	place, put := exclude.Clean, t.replaceWith
	if l != nil {
		place, put = l.place, l.put
	}
	if named := exclude.Clean(h.Name); checkName(named) != nil {
		t.Report.Changed(Unsupported, fmt.Sprintf("%s...: %v", named[:maxName], checkName(named)), h.Size)
		return
	}
	name := place(h.Name)
	a := paxAttributes(h.PAXRecords)
	h.Name, h.Uname, h.Gname, h.Format, h.PAXRecords = name, "", "", tar.FormatUnknown, nil
	// The reader enters extended attributes here once more, and the writer would write them,
	// also those that are dropped below.
	//lint:ignore SA1019 package tar itself still uses it
	h.Xattrs = nil
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		h.Typeflag = tar.TypeReg
	case tar.TypeLink:
		if err := checkName(exclude.Clean(h.Linkname)); err != nil {
			t.Report.Changed(Unsupported, fmt.Sprintf("%s: a hard link to a file that stays out: %v", name, err), 0)
			return
		}
		h.Linkname = place(h.Linkname)
	case tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeXGlobalHeader:
		return // it speaks of the archive
	default:
		t.Report.Changed(Unsupported, fmt.Sprintf("%s: a tar member of type %q", name, h.Typeflag), h.Size)
		return
	}
	e := &Entry{Header: h, Stored: m.stored}
	if data, segments := m.data, m.segments; data != nil { // not m: there may be a million
		e.Open = func() (*Content, error) {
			c := Stable(e.Header, data, nil)
			c.Segments = segments
			return c, nil
		}
	}
	rule, top := t.Rules.Out(name)
	if rule == nil && h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 && !t.Rules.Keeps(name) {
		rule, top = exclude.Whiteout, name
	}
	if rule != nil {
		t.Report.LeftOut(rule, top, m.stored)
		t.excluded[name] = e
		return
	}
	if err := t.fit(name, &e.Header); err != nil {
		t.Report.Changed(Unsupported, fmt.Sprintf("%s: %v", name, err), h.Size)
		return
	}
	t.setAttributes(name, &e.Header, a)
	put(name, e)
}

// replaceWith adds a member. As when an archive is unpacked, a directory that
// takes the place of a directory keeps what is in it, anything else does not.
func (t *Tree) replaceWith(name string, e *Entry) {
	if old := t.entries[name]; old != nil && old.Header.Typeflag == tar.TypeDir && e.Header.Typeflag != tar.TypeDir && len(t.children[name]) > 0 && name != "." {
		t.Report.Changed(Unsupported, name+": it would replace a directory", e.Header.Size)
		return
	}
	t.add(name, e)
}

// mainHeader returns where the header of a member stands, behind those that
// extend it.
func mainHeader(r *io.SectionReader) (int64, error) {
	at := int64(0)
	for {
		var block [sparsetar.BlockSize]byte
		if _, err := r.ReadAt(block[:], at); err != nil {
			return 0, fmt.Errorf("find the header: %w", err)
		}
		size, extends, err := sparsetar.Extends(block)
		if err != nil || !extends {
			return at, err
		}
		at += sparsetar.BlockSize + size
	}
}
