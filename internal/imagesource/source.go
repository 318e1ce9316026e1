// Package imagesource finds out what somebody names as an installed Linux, and has it
// ready to be indexed: a directory, a tar archive, an image of a container, from an archive
// or an OCI layout, a disk, a partition or an image of one, each file also compressed.
//
// What a source is, its content says and no name. What is none is named, with what to
// do. It writes to no source. It does not judge the Linux in it (package bootfiles
// does) nor choose its files (imagetree, exclude). The invariant: whatever a source says of
// itself, no name leads out of it, and a build that ends leaves nothing of what was unpacked,
// killed or not.
package imagesource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
)

// Options say how to read a source.
type Options struct {
	// Ref chooses one of several images of an archive: by name, or by the beginning of its
	// digest.
	Ref string
	// Root chooses one of several installed Linuxes on a disk: the number of the partition or the name of the
	// logical volume, with a btrfs's subvolume behind a colon.
	Root string
	// Passphrase opens what is encrypted on a disk; empty for none.
	Passphrase []byte
	// Work is a directory on a disk that has room for what is compressed in the source.
	Work string
	// Progress is told how far a task has come, in bytes; may be nil.
	Progress func(task string, done, total int64)
}

// progress returns what adds to the bytes that a task has done.
func (o Options) progress(task string, total int64) func(n int) {
	if o.Progress == nil {
		return func(int) {}
	}
	var done int64
	return func(n int) {
		done += int64(n)
		o.Progress(task, done, total)
	}
}

// Source is what somebody named, opened.
type Source struct {
	// Kind says what it is.
	Kind string
	// Notes are for people: what of it is not read.
	Notes []string
	name  string
	// scan indexes it.
	scan    func(ctx context.Context, choice *exclude.Choice, skip []string) (*imagetree.Tree, error)
	closers []io.Closer
	room    *allowance // for what is unpacked of it
}

// Open finds out what a path leads to. The source has to stay open as long as its tree.
func Open(ctx context.Context, name string, o Options) (*Source, error) {
	s := &Source{name: name}
	if err := s.open(ctx, name, o); err != nil {
		return nil, errors.Join(fmt.Errorf("source %s: %w", name, err), s.Close())
	}
	return s, nil
}

// Scan indexes the source. choice and skip are those of imagetree.Scan.
func (s *Source) Scan(ctx context.Context, choice *exclude.Choice, skip ...string) (*imagetree.Tree, error) {
	tree, err := s.scan(ctx, choice, skip)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", s.name, err)
	}
	return tree, nil
}

// Close releases the source.
func (s *Source) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (s *Source) closeLater(c io.Closer) { s.closers = append(s.closers, c) }

func (s *Source) open(ctx context.Context, name string, o Options) error {
	fi, err := os.Stat(name)
	if err != nil {
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			return pathErr.Err // the name is said already
		}
		return err
	}
	isDisk := fi.Mode()&fs.ModeType == fs.ModeDevice
	switch {
	case fi.IsDir():
		return s.openDir(ctx, name, o)
	case !fi.Mode().IsRegular() && !isDisk:
		return fmt.Errorf("it is neither a directory, a file nor a disk, but %s", fi.Mode())
	}
	if isDisk {
		if err := inUse(name); err != nil {
			return err
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	s.closeLater(f)
	data, err := whole(f)
	if err != nil {
		return err
	}
	s.room = allow(data.Size())
	return s.openFile(ctx, f, o)
}

func (s *Source) openDir(ctx context.Context, name string, o Options) error {
	if isFile(name, layoutFile) {
		root, err := os.OpenRoot(name)
		if err != nil {
			return err
		}
		d := &dirStore{root: root}
		s.closeLater(d)
		return s.openContainer(ctx, o, d, "an OCI layout")
	}
	if isFile(name, dockerFile) && isFile(name, "version") {
		return errors.New("it is an image as skopeo copies it to dir:; copy it to oci: instead")
	}
	if err := o.wantsNoChoice(); err != nil {
		return err
	}
	s.Kind = "a directory"
	if filepath.Clean(name) == "/" {
		return s.openRunning(ctx, "/", o.Work)
	}
	s.scan = func(ctx context.Context, choice *exclude.Choice, skip []string) (*imagetree.Tree, error) {
		return imagetree.Scan(ctx, name, choice, skip...)
	}
	return nil
}

func isFile(dir, name string) bool {
	fi, err := os.Stat(filepath.Join(dir, name))
	return err == nil && fi.Mode().IsRegular()
}

// openFile takes a file for what it holds, and what is packed in it for that.
func (s *Source) openFile(ctx context.Context, f *os.File, o Options) error {
	packing := ""
	const layers = 3 // such as a qcow2 disk that is compressed
	for range layers {
		data, err := whole(f)
		if err != nil {
			return err
		}
		kind, err := identifyAt(data)
		if err != nil {
			return err
		}
		switch {
		case isCompressed(kind):
			if f, err = unpack(ctx, o.Work, s.room, kind, data, o.progress("unpack the source", data.Size())); err != nil {
				return err
			}
			packing = ", compressed with " + string(kind) + packing
		case isVirtual(kind):
			o.progress("read the disk", 0)(0)
			if f, err = convert(ctx, o.Work, s.room, kind, f); err != nil {
				return err
			}
			packing = " in " + string(kind) + packing
		case isOnDisk(kind):
			return s.openDisk(ctx, f, o, string(kind)+packing)
		case kind == kindTar:
			return s.openTar(ctx, data, o, packing)
		default:
			return notUnderstood(kind, packing, data)
		}
		s.closeLater(f)
	}
	return fmt.Errorf("it is packed more than %d times; unpack it", layers-1)
}

func (s *Source) openTar(ctx context.Context, data *io.SectionReader, o Options, packing string) error {
	archive, ok, err := openTarStore(ctx, data)
	switch {
	case err != nil:
		return err
	case ok:
		return s.openContainer(ctx, o, archive, "an archive of container images"+packing)
	}
	if err := o.wantsNoChoice(); err != nil {
		return err
	}
	s.Kind = string(kindTar) + packing
	s.scan = func(ctx context.Context, choice *exclude.Choice, _ []string) (*imagetree.Tree, error) {
		return imagetree.ScanTar(ctx, imagetree.Archive{Data: data, Size: data.Size()}, choice)
	}
	return nil
}

// openContainer opens an image of a store.
func (s *Source) openContainer(ctx context.Context, o Options, from store, kind string) error {
	if err := o.wantsNoDisk(); err != nil {
		return err
	}
	list, others, err := containers(from)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	c, err := choose(list, others, o.Ref)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	layers, err := s.openLayers(ctx, o, from, c)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", kind, c, err)
	}
	s.Kind = fmt.Sprintf("%s: %s, %d layers", kind, c, len(layers))
	s.scan = func(ctx context.Context, choice *exclude.Choice, _ []string) (*imagetree.Tree, error) {
		return imagetree.ScanLayers(ctx, layers, choice)
	}
	return nil
}

// wantsNoChoice says that there is nothing to choose.
func (o Options) wantsNoChoice() error {
	if o.Ref != "" {
		return fmt.Errorf("--ref %s: the source is not an archive or a layout of container images", o.Ref)
	}
	return o.wantsNoDisk()
}

// wantsNoDisk says that there is no disk to choose from or to open.
func (o Options) wantsNoDisk() error {
	switch {
	case o.Root != "":
		return fmt.Errorf("--root %s: the source is no disk", o.Root)
	case len(o.Passphrase) > 0:
		return errors.New("--passphrase-file: the source is no disk")
	}
	return nil
}

// notUnderstood names what is no source.
func notUnderstood(kind Kind, packing string, data *io.SectionReader) error {
	if kind == kindUnknown {
		return fmt.Errorf("it is nothing that VIVER knows (%d bytes%s); %s", data.Size(), packing, wanted)
	}
	if a := advice(kind); a != "" {
		return fmt.Errorf("it is %s%s: %s", kind, packing, a)
	}
	return fmt.Errorf("it is %s%s; %s", kind, packing, wanted)
}

const wanted = "a source is a directory, a tar archive, an image of a container, or a disk"

// identifyAt reads the beginning of what is to be identified.
func identifyAt(data *io.SectionReader) (Kind, error) {
	head := make([]byte, min(headSize, data.Size()))
	if _, err := data.ReadAt(head, 0); err != nil && err != io.EOF {
		return "", err
	}
	return identify(head), nil
}

// whole reads all of a file, or of a disk.
func whole(f *os.File) (*io.SectionReader, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f, 0, size), nil
}
