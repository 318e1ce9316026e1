package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// ConfigLabel is the label of the medium's volume that people edit.
const ConfigLabel = "VIVERCONF"

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
	offset, err := volumeOffset(medium, ConfigLabel)
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
	offset, err := volumeOffset(medium, ConfigLabel)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", file, medium, err)
	}
	return output(ctx, "mtype", "-i", fmt.Sprintf("%s@@%d", medium, offset), "::/"+filepath.ToSlash(file))
}

// volumeOffset finds the partition of a disk or ISO image that holds a FAT
// volume with a label.
func volumeOffset(image, label string) (int64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	starts, err := partitions(f)
	if err != nil {
		return 0, err
	}
	want := []byte(fmt.Sprintf("%-11s", label))
	for _, at := range starts {
		boot := make([]byte, sectorSize)
		if _, err := f.ReadAt(boot, at); err != nil {
			continue // a table may name sectors that the file lacks
		}
		if bytes.Equal(boot[43:54], want) || bytes.Equal(boot[71:82], want) { // FAT12/16, FAT32
			return at, nil
		}
	}
	return 0, fmt.Errorf("none of its partitions (at %v) is a FAT volume called %s", starts, label)
}

// partitions returns the first byte of each partition in an MBR or GPT.
func partitions(r io.ReaderAt) ([]int64, error) {
	head := make([]byte, 2*sectorSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read the partition table: %w", err)
	}
	if head[510] != 0x55 || head[511] != 0xaa {
		return nil, errors.New("no partition table")
	}
	var starts []int64
	for e := head[446:510]; len(e) > 0; e = e[16:] {
		if start := binary.LittleEndian.Uint32(e[8:]); e[4] != 0 && e[4] != 0xee && start > 0 {
			starts = append(starts, int64(start)*sectorSize)
		}
	}
	gpt := head[sectorSize:]
	if string(gpt[:8]) != "EFI PART" {
		return starts, nil
	}
	first := int64(binary.LittleEndian.Uint64(gpt[72:])) * sectorSize
	count, size := binary.LittleEndian.Uint32(gpt[80:]), int64(binary.LittleEndian.Uint32(gpt[84:]))
	for i := int64(0); i < int64(min(count, 128)) && size >= 48; i++ {
		var e [48]byte
		if _, err := r.ReadAt(e[:], first+i*size); err != nil {
			return nil, fmt.Errorf("read GPT entry %d: %w", i, err)
		}
		if start := int64(binary.LittleEndian.Uint64(e[32:])); start > 0 {
			starts = append(starts, start*sectorSize)
		}
	}
	return starts, nil
}
