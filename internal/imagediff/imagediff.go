// Package imagediff compares two images: what a machine that has one of them fetches for
// the other, and which files of the root disk differ.
//
// It reads what the images say of themselves and their root disks, and believes both: package
// imagedir verifies. The invariant: two files that it does not name have the same
// type, attributes and content in both.
package imagediff

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/squashmap"
)

// Diff says what image B has otherwise than image A.
type Diff struct {
	A *manifest.Manifest `json:"a"`
	B *manifest.Manifest `json:"b"`
	// Pieces of B; those that a machine with A lacks, and their bytes.
	Pieces  int   `json:"pieces"`
	Missing int   `json:"missing_pieces"`
	Fetched int64 `json:"fetched_bytes"`
	// Payload are the files of both images.
	Payload []PayloadFile `json:"payload"`
	// Root are the files of the root disk that differ, by path.
	Root []Change `json:"root"`
}

// PayloadFile is a file of an image; a size of 0 says that one has it not.
type PayloadFile struct {
	Name   string `json:"name"`
	SizeA  int64  `json:"size_a"`
	SizeB  int64  `json:"size_b"`
	Equals bool   `json:"equal"`
}

// What happened to a file.
const (
	Added      = "added"
	Removed    = "removed"
	Changed    = "changed"    // its content, or what it is
	Attributes = "attributes" // owner, permissions, time, extended attributes
)

// Change is a file of the root disk that differs.
type Change struct {
	Path  string `json:"path"`
	What  string `json:"what"`
	SizeA uint64 `json:"size_a"`
	SizeB uint64 `json:"size_b"`
}

// Compare compares two image directories. progress is told how many bytes of files it
// has compared, of how many.
func Compare(ctx context.Context, a, b string, progress func(done, total int64)) (*Diff, error) {
	var d Diff
	var infos [2]*metainfo.Info
	for i, dir := range []string{a, b} {
		files, err := description.Read(description.In(dir))
		if err != nil {
			return nil, fmt.Errorf("%s is no image: %w", dir, err)
		}
		m, info, err := files.Decode()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		*[]**manifest.Manifest{&d.A, &d.B}[i], infos[i] = m, info
	}
	d.Pieces, d.Fetched = infos[1].NumPieces(), infos[1].Missing(infos[0])
	for _, at := range infos[1].Shared(infos[0]) {
		if at < 0 {
			d.Missing++
		}
	}
	d.comparePayload()
	var err error
	d.Root, err = compareRoots(ctx, filepath.Join(a, manifest.Root), filepath.Join(b, manifest.Root), progress)
	return &d, err
}

func (d *Diff) comparePayload() {
	for _, f := range d.B.Files {
		old, _, found := d.A.Lookup(f.Name)
		d.Payload = append(d.Payload, PayloadFile{f.Name, old.Size, f.Size, found && old.SHA256 == f.SHA256})
	}
	for _, f := range d.A.Files {
		if _, _, found := d.B.Lookup(f.Name); !found {
			d.Payload = append(d.Payload, PayloadFile{f.Name, f.Size, 0, false})
		}
	}
}

// root is one of two root disks.
type root struct {
	*squashmap.FS
	file  *os.File
	ids   []uint32
	names map[string]*squashmap.Inode
	sums  map[*squashmap.Inode]squashmap.Sum
}

func openRoot(name string) (*root, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	r := &root{file: f, sums: make(map[*squashmap.Inode]squashmap.Sum)}
	if err := r.read(); err != nil {
		_ = f.Close() // it was only read
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (r *root) read() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if r.FS, err = squashmap.Open(r.file, info.Size()); err != nil {
		return err
	}
	if r.ids, err = r.IDs(); err != nil {
		r.FS.Close()
		return err
	}
	r.names = maps.Collect(r.All())
	r.names[""] = r.Root
	return nil
}

func (r *root) close() {
	r.FS.Close()
	_ = r.file.Close() // it was only read
}

func compareRoots(ctx context.Context, a, b string, progress func(done, total int64)) ([]Change, error) {
	before, err := openRoot(a)
	if err != nil {
		return nil, err
	}
	defer before.close()
	after, err := openRoot(b)
	if err != nil {
		return nil, err
	}
	defer after.close()
	if err := sumUp(ctx, before, after, progress); err != nil {
		return nil, err
	}
	changes := []Change{}
	for name, in := range after.names {
		old := before.names[name]
		if old == nil {
			changes = append(changes, Change{"/" + name, Added, 0, in.Size})
			continue
		}
		what, err := before.differs(old, after, in)
		if err != nil {
			return nil, fmt.Errorf("/%s: %w", name, err)
		}
		if what != "" {
			changes = append(changes, Change{"/" + name, what, old.Size, in.Size})
		}
	}
	for name, old := range before.names {
		if after.names[name] == nil {
			changes = append(changes, Change{"/" + name, Removed, old.Size, 0})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, nil
}

// sumUp reads the contents that only a comparison tells apart: of files with one name and
// one size in both.
func sumUp(ctx context.Context, before, after *root, progress func(done, total int64)) error {
	wanted := make(map[*squashmap.Inode]bool)
	var done, total int64
	for name, in := range after.names {
		if old := before.names[name]; old != nil && old.Type == squashmap.TypeFile && in.Type == old.Type && in.Size == old.Size {
			for _, file := range []*squashmap.Inode{old, in} {
				if !wanted[file] {
					wanted[file] = true
					total += int64(file.Size - min(file.Holes, file.Size))
				}
			}
		}
	}
	for _, r := range []*root{before, after} {
		for _, in := range r.Contents() {
			if !wanted[in] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			sum, err := r.Sum(in)
			if err != nil {
				return fmt.Errorf("%s: %w", r.file.Name(), err)
			}
			r.sums[in] = sum
			done += int64(in.Size - min(in.Holes, in.Size))
			progress(done, total)
		}
	}
	return nil
}

// differs says what makes two files of one name differ, "" if nothing does.
func (r *root) differs(old *squashmap.Inode, after *root, in *squashmap.Inode) (string, error) {
	if old.Type != in.Type || old.Target != in.Target || old.Device != in.Device || old.Size != in.Size || r.sums[old] != after.sums[in] {
		return Changed, nil
	}
	a, err := r.attributes(old)
	if err != nil {
		return "", err
	}
	b, err := after.attributes(in)
	if err != nil {
		return "", err
	}
	if !slices.Equal(a, b) {
		return Attributes, nil
	}
	return "", nil
}

// attributes are all of a file but what it is and has.
func (r *root) attributes(in *squashmap.Inode) ([]string, error) {
	if int(in.Owner) >= len(r.ids) || int(in.Group) >= len(r.ids) {
		return nil, fmt.Errorf("its owner is %d of %d", max(in.Owner, in.Group), len(r.ids))
	}
	list, err := r.Attributes(in)
	return append(list, fmt.Sprint(in.Mode, r.ids[in.Owner], r.ids[in.Group], in.Time)), err
}
