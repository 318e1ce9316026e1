package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"viver.lan/internal/media"
)

// isoSector is the unit of addresses in ISO 9660, in bytes.
const isoSector = 2048

// extentLine is a line of xorriso's report_lba: extent, start, blocks, size,
// path.
var extentLine = regexp.MustCompile(`(?m)^File data lba: *\d+ *, *(\d+) *, *\d+ *, *(\d+) *,`)

// Extent returns where a file's bytes are inside an ISO.
func Extent(ctx context.Context, iso, file string) (offset, size int64, err error) {
	out, err := output(ctx, "xorriso", "-report_about", "WARNING", "-indev", iso, "-find", file, "-exec", "report_lba", "--")
	if err != nil {
		return 0, 0, fmt.Errorf("find %s in %s: %w", file, iso, err)
	}
	m := extentLine.FindSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("find %s in %s: xorriso reports no data of it: %q", file, iso, out)
	}
	lba, err1 := strconv.ParseInt(string(m[1]), 10, 64)
	size, err2 := strconv.ParseInt(string(m[2]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("find %s in %s: %w", file, iso, err)
	}
	return lba * isoSector, size, nil
}

// ReadISO returns the content of a file inside an ISO.
func ReadISO(ctx context.Context, iso, file string) ([]byte, error) {
	offset, size, err := Extent(ctx, iso, file)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(iso)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := f.ReadAt(data, offset); err != nil {
		return nil, fmt.Errorf("read %s in %s: %w", file, iso, err)
	}
	return data, nil
}

// Copy makes a private copy of a medium, to be changed.
func Copy(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("copy medium: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("copy medium: %w", err)
	}
	_, err = io.Copy(out, in) // the kernel shares the blocks where it can
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy medium: %w", err), removed(dst))
	}
	return nil
}

// FlipBit damages one bit of a file inside an ISO, in the middle of the byte
// at offset. It changes the medium: use it on a copy.
func FlipBit(ctx context.Context, iso, file string, offset int64) error {
	start, size, err := Extent(ctx, iso, file)
	if err != nil {
		return err
	}
	if offset < 0 || offset >= size {
		return fmt.Errorf("flip a bit of %s: it has %d bytes, none at %d", file, size, offset)
	}
	f, err := os.OpenFile(iso, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("flip a bit of %s: %w", file, err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], start+offset)
	if err == nil {
		b[0] ^= 0x10
		_, err = f.WriteAt(b[:], start+offset)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("flip a bit of %s: %w", file, err)
	}
	return nil
}

// Edit puts files on a medium's settings volume, as anyone's PC does; paths
// are those on the volume, e.g. "viver/viver.toml". It changes the medium: use
// it on a copy.
func Edit(ctx context.Context, medium string, files map[string]string) error {
	tree, err := os.MkdirTemp("", "viver-edit-")
	if err != nil {
		return fmt.Errorf("edit %s: %w", medium, err)
	}
	defer os.RemoveAll(tree)
	if err := lay(tree, files); err != nil {
		return fmt.Errorf("edit %s: %w", medium, err)
	}
	return AddTree(ctx, medium, tree)
}

// AddTree copies the content of a folder to the root of a medium's settings
// volume, over what is there. It changes the medium: use it on a copy.
func AddTree(ctx context.Context, medium, tree string) error {
	offset, err := volumeOffset(medium)
	if err != nil {
		return fmt.Errorf("edit %s: %w", medium, err)
	}
	if err := copyIn(ctx, fmt.Sprintf("%s@@%d", medium, offset), tree); err != nil {
		return fmt.Errorf("edit %s: %w", medium, err)
	}
	return nil
}

// AddRune puts a bundle beside the others on a medium's settings volume. It
// changes the medium: use it on a copy.
func AddRune(ctx context.Context, medium, bundle string) error {
	tree, err := os.MkdirTemp("", "viver-rune-")
	if err != nil {
		return fmt.Errorf("add rune: %w", err)
	}
	defer os.RemoveAll(tree)
	if err := os.CopyFS(filepath.Join(tree, "viver/runes", filepath.Base(bundle)), os.DirFS(bundle)); err != nil {
		return fmt.Errorf("add rune: %w", err)
	}
	return AddTree(ctx, medium, tree)
}

// ReadVolume returns a file of the medium's settings volume.
func ReadVolume(ctx context.Context, medium, file string) ([]byte, error) {
	offset, err := volumeOffset(medium)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", file, medium, err)
	}
	return output(ctx, "mtype", "-i", fmt.Sprintf("%s@@%d", medium, offset), "::/"+filepath.ToSlash(file))
}

// volumeOffset finds the volume that people edit on a disk or ISO image.
func volumeOffset(image string) (int64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	volume, err := media.SettingsVolume(f, fi.Size())
	return volume.Offset, err
}
