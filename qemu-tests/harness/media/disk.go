// Package media makes the disks and media that machines are tested with, as
// an ordinary user: file systems are filled without mounting them.
//
// It is not what VIVER makes media with; that is `viver medium`, which this
// package calls. The invariant: a function that fails leaves no file that
// could be taken for a whole one, and no function changes a file that it did
// not make, except where its comment says so.
package media

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"viver.lan/internal/hosttool"
)

// FileSystem is what a disk is formatted with.
type FileSystem string

// The file systems, and the tool that each needs.
const (
	Ext4 FileSystem = "ext4"  // mkfs.ext4
	XFS  FileSystem = "xfs"   // mkfs.xfs; 300 MiB at least
	VFAT FileSystem = "vfat"  // mkfs.vfat, mcopy
	Swap FileSystem = "swap"  // mkswap
	None FileSystem = "blank" // zeros
)

// DiskSpec describes a raw disk image.
type DiskSpec struct {
	FS   FileSystem
	Size int64 // bytes, of the whole disk
	// Label of the file system; may be empty.
	Label string
	// Files by slash-separated path; a path that ends in "/" is an empty
	// folder. Only Ext4, XFS and VFAT can have any.
	Files map[string]string
	// WholeDisk leaves out the partition table.
	WholeDisk bool
	// Hibernated, with FS Swap, makes it the swap area of a system that
	// sleeps in it.
	Hibernated bool
}

const (
	// partitionStart is where the only partition begins, in bytes.
	partitionStart = 1 << 20
	sectorSize     = 512
)

// NewDisk makes a disk image.
func NewDisk(ctx context.Context, path string, spec DiskSpec) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make disk %s: %w", filepath.Base(path), err), removed(path))
		}
	}()
	size := spec.Size
	if !spec.WholeDisk {
		size -= partitionStart
	}
	if size <= 0 || size%sectorSize != 0 {
		return fmt.Errorf("size %d: want a multiple of %d that holds a partition", spec.Size, sectorSize)
	}
	if err := create(path, size); err != nil {
		return err
	}
	if err := format(ctx, path, spec); err != nil {
		return err
	}
	if spec.Hibernated {
		if err := hibernate(path); err != nil {
			return err
		}
	}
	if spec.WholeDisk {
		return nil
	}
	return addTable(path, spec.FS, size)
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// create makes a sparse file.
func create(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func format(ctx context.Context, path string, spec DiskSpec) error {
	tree, err := os.MkdirTemp("", "viver-disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := lay(tree, spec.Files); err != nil {
		return err
	}
	switch spec.FS {
	case None:
		return nil
	case Ext4:
		return run(ctx, "mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-L", spec.Label, "-d", tree, path)
	case XFS:
		proto := filepath.Join(filepath.Dir(tree), filepath.Base(tree)+".proto")
		defer os.Remove(proto)
		if err := writeProto(proto, tree); err != nil {
			return err
		}
		return run(ctx, "mkfs.xfs", "-q", "-f", "-L", spec.Label, "-p", proto, path)
	case VFAT:
		label := spec.Label
		if label == "" {
			label = "NO NAME"
		}
		if err := run(ctx, "mkfs.vfat", "-n", label, path); err != nil {
			return err
		}
		return copyIn(ctx, path, tree)
	case Swap:
		return run(ctx, "mkswap", "-q", "-L", spec.Label, path)
	}
	return fmt.Errorf("file system %q is not known", spec.FS)
}

// lay writes files into a folder.
func lay(dir string, files map[string]string) error {
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeProto describes a tree to mkfs.xfs(8).
func writeProto(path, tree string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "/dev/null\n0 0\nd--755 0 0\n")
	if err := protoEntries(&b, tree); err != nil {
		return err
	}
	b.WriteString("$\n")
	return os.WriteFile(path, []byte(b.String()), 0o600)
}

func protoEntries(b *strings.Builder, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() {
			fmt.Fprintf(b, "%s ---644 0 0 %s\n", e.Name(), path)
			continue
		}
		fmt.Fprintf(b, "%s d--755 0 0\n", e.Name())
		if err := protoEntries(b, path); err != nil {
			return err
		}
		b.WriteString("$\n")
	}
	return nil
}

// copyIn copies what is in a folder to the root of a FAT volume; path may
// carry mtools' "@@offset".
func copyIn(ctx context.Context, path, tree string) error {
	entries, err := os.ReadDir(tree)
	if err != nil {
		return err
	}
	args := []string{"-s", "-o", "-Q", "-i", path}
	for _, e := range entries {
		args = append(args, filepath.Join(tree, e.Name()))
	}
	if len(entries) == 0 {
		return nil
	}
	return run(ctx, "mcopy", append(args, "::/")...)
}

// hibernate writes what swsusp leaves in a swap area's first page.
func hibernate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	const page, signature = 4096, "S1SUSPEND\x00"
	if _, err := f.WriteAt([]byte(signature), page-int64(len(signature))); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// addTable moves the file system into the first partition of an MBR disk.
func addTable(path string, fsys FileSystem, size int64) error {
	part := path + ".part"
	if err := os.Rename(path, part); err != nil {
		return err
	}
	defer os.Remove(part)
	if err := create(path, partitionStart+size); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	types := map[FileSystem]byte{VFAT: 0x0c, Swap: 0x82}
	kind, ok := types[fsys]
	if !ok {
		kind = 0x83
	}
	mbr := make([]byte, sectorSize)
	binary.LittleEndian.PutUint32(mbr[440:], 0x56495645) // disk identifier
	entry := mbr[446:462]
	entry[4] = kind
	copy(entry[1:4], "\xfe\xff\xff") // no cylinders, heads, sectors
	copy(entry[5:8], "\xfe\xff\xff")
	binary.LittleEndian.PutUint32(entry[8:], partitionStart/sectorSize)
	binary.LittleEndian.PutUint32(entry[12:], uint32(size/sectorSize))
	mbr[510], mbr[511] = 0x55, 0xaa
	if _, err := f.WriteAt(mbr, 0); err != nil {
		return err
	}
	if err := copyData(f, partitionStart, part); err != nil {
		return err
	}
	return f.Close()
}

// copyData copies a file to an offset of another one and leaves out blocks of
// zeros, so that a sparse file stays sparse.
func copyData(dst *os.File, at int64, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && string(buf[:n]) != string(zeros[:n]) {
			if _, err := dst.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// SHA256 is the hexadecimal digest of a file, to see that a disk was left
// alone.
func SHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("digest of %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// run executes a tool and keeps what it says for the error.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	// mkfs tools are in sbin, which an ordinary user's PATH may lack; mtools
	// refuses images whose size is no multiple of a made-up track.
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if path, err := hosttool.Find(name); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return []byte(stdout.String()), nil
}

// Tools are the programs that make a file system, for harness.Need.
func Tools(fsys FileSystem) []string {
	return map[FileSystem][]string{
		Ext4: {"mkfs.ext4"}, XFS: {"mkfs.xfs"}, VFAT: {"mkfs.vfat", "mcopy"}, Swap: {"mkswap"},
	}[fsys]
}
