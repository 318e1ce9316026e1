package runes

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// WriteTar writes the bundles as a tar archive, one folder each, as the boot
// host serves it. The bytes depend on the bundles only.
func WriteTar(w io.Writer, bundles []Bundle) error {
	tw := tar.NewWriter(w)
	for _, b := range Merge(bundles) {
		for _, name := range slices.Sorted(maps.Keys(b.tree)) {
			if err := writeNode(tw, b.Name+"/"+name, b.tree[name]); err != nil {
				return fmt.Errorf("write rune %s: %w", b.Name, err)
			}
		}
	}
	return tw.Close()
}

func writeNode(tw *tar.Writer, name string, n node) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(n.data)), Format: tar.FormatPAX}
	if n.exec {
		h.Mode = 0o755
	}
	if n.link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, n.link, 0o777
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(n.data)
	return err
}

// ReadTar reads bundles from a tar archive. Nothing is unpacked: the files
// stay in memory, within the same bounds as Load. An archive that is cut
// short, or holds anything but plain files, folders and symbolic links below
// its own folders, is refused whole; a folder that is no proper rune is
// reported and left out.
func ReadTar(r io.Reader) ([]Bundle, []error) {
	folders, err := readFolders(r)
	if err != nil {
		return nil, []error{fmt.Errorf("read runes from tar: %w", err)}
	}
	var bundles []Bundle
	var errs []error
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		b, err := newBundle(folder, folders[folder])
		if err != nil {
			errs = append(errs, &BrokenError{folder, err})
			continue
		}
		bundles = append(bundles, b)
	}
	return Merge(bundles), errs
}

// LoadNode reads the runes of a node: the folders of a directory and, in place of those
// of the same name, the ones of an archive, which need not be there. Broken ones are left
// out, and in the errors.
func LoadNode(dir, archive string) ([]Bundle, []error) {
	builtin, errs := Load(os.DirFS(dir))
	var added []Bundle
	f, err := os.Open(archive)
	switch {
	case err == nil:
		var more []error
		added, more = ReadTar(f)
		errs = append(errs, more...)
		_ = f.Close() // opened for reading: nothing can be lost
	case !errors.Is(err, os.ErrNotExist):
		errs = append(errs, err)
	}
	return Merge(builtin, added), errs
}

func readFolders(r io.Reader) (map[string]map[string]node, error) {
	folders := make(map[string]map[string]node)
	left := budget{files: maxFiles, bytes: maxBytes}
	tail := &zeroTail{r: r}
	tr := tar.NewReader(tail)
	for entries := 0; ; entries++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return folders, tail.check()
		}
		if err != nil {
			return nil, err
		}
		if entries >= 2*maxFiles { // folders cost nothing else
			return nil, errTooBig
		}
		name, err := cleanName(h.Name)
		if err != nil {
			return nil, err
		}
		var n node
		switch h.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
			n.exec = h.Mode&0o100 != 0
			n.data, err = left.readAll(tr)
		case tar.TypeSymlink:
			n.link, err = h.Linkname, left.take(0)
			if n.link == "" || len(n.link) > maxPath {
				err = fmt.Errorf("symbolic link to %q", n.link)
			}
		default:
			err = fmt.Errorf("entry of type %q, want a file, a folder or a symbolic link", h.Typeflag)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		folder, inside, ok := strings.Cut(name, "/")
		if !ok {
			return nil, fmt.Errorf("%s: a file outside of any folder", name)
		}
		if folders[folder] == nil {
			folders[folder] = make(map[string]node)
		}
		if _, twice := folders[folder][inside]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		folders[folder][inside] = n
	}
}

// zeroTail counts the zero bytes that its reader ended with: a tar archive
// ends with two blocks of them, and archive/tar does not insist on it.
type zeroTail struct {
	r     io.Reader
	zeros int
}

func (z *zeroTail) Read(p []byte) (int, error) {
	n, err := z.r.Read(p)
	for _, c := range p[:n] {
		z.zeros++
		if c != 0 {
			z.zeros = 0
		}
	}
	return n, err
}

func (z *zeroTail) check() error {
	if z.zeros < 1024 {
		return errors.New("the archive is cut short: no end mark")
	}
	return nil
}
