// Package manifest describes a diskless image: what it is called, where it
// came from, and the exact bytes of every file that belongs to it.
//
// An image is a directory and an immutable value. Its files, in the order the
// manifest lists them, are the payload of one multi-file torrent (BEP 3), so a
// node that holds every piece holds the root disk and everything a boot host
// must serve. The invariant: two images with the same infohash are the same
// bytes, and the root file system always begins at offset 0 of the payload.
package manifest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"time"
)

// Format is the version of the layout that this package writes. It reads 1 too, which
// has no NICs: a program that knows 1 only would make media without them.
const Format = 2

// Names of the files in an image directory. Root, Kernel, Initramfs, NICs and Drivers
// are part of the payload; File, Signature and Metainfo describe it and stand
// beside it.
const (
	File      = "manifest.json"
	Signature = File + ".minisig" // the owner's, of File to the byte
	Metainfo  = "image.torrent"
	Root      = "root.squashfs"
	Kernel    = "vmlinuz"
	Initramfs = "initramfs.img"
	// NICs holds the drivers of network cards, behind a table that says which card needs
	// which part (package nics). It is loaded behind Initramfs, whole where the card is
	// not known. Images of format 1 have those in Initramfs.
	NICs = "nics.img"
	// Drivers holds the kernel modules that a machine needs after its network, for
	// its disks above all: an archive as Initramfs is one. The boot medium loads
	// both; other machines fetch this one when they have a network.
	Drivers = "drivers.img"
	// BootDir holds the network boot programs (iPXE, shim, GRUB).
	BootDir = "boot"
)

// OwnerKey is the owner's public key inside Initramfs: whoever boots it takes
// images of that owner and of nobody else.
const OwnerKey = "etc/viver/owner.pub"

// NoRedirect, as the query of a file's URL at a boot host, asks for the file itself: it is
// in each redirect to another node, so that a client is redirected once only.
const NoRedirect = "stay"

// Infohash is the SHA-1 of the bencoded info dictionary (BEP 3). It names an
// image on the wire and on the kernel command line.
type Infohash [20]byte

// ParseInfohash reads the 40 hexadecimal digits that String writes.
func ParseInfohash(s string) (Infohash, error) {
	var h Infohash
	if err := h.UnmarshalText([]byte(s)); err != nil {
		return Infohash{}, err
	}
	return h, nil
}

// String returns the infohash as 40 lower-case hexadecimal digits.
func (h Infohash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Infohash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Infohash) UnmarshalText(text []byte) error {
	return unhex(h[:], text, "infohash")
}

// Digest is the SHA-256 of a file's bytes.
type Digest [32]byte

// String returns the digest as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	return unhex(d[:], text, "digest")
}

func unhex(dst, text []byte, what string) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%s %q: want %d hexadecimal digits, found %d characters", what, text, hex.EncodedLen(len(dst)), len(text))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("%s %q: %w", what, text, err)
	}
	return nil
}

// FileInfo is one file of the payload.
type FileInfo struct {
	// Name is the slash-separated path inside the image directory.
	Name string `json:"name"`
	// Size in bytes.
	Size int64 `json:"size"`
	// SHA256 of the whole file.
	SHA256 Digest `json:"sha256"`
}

// Manifest is the description of one image, stored as File beside the payload.
type Manifest struct {
	// Format is the layout version, see the constant of the same name.
	Format int `json:"format"`
	// Name is what people call the image, e.g. "debian".
	Name string `json:"name"`
	// Created is the build time, UTC, to the second.
	Created time.Time `json:"created"`
	// Distribution is PRETTY_NAME of the source tree's os-release(5).
	Distribution string `json:"distribution"`
	// KernelRelease is what uname -r will print on a node.
	KernelRelease string `json:"kernel_release"`
	// Arch is the machine architecture as Go names it, e.g. "amd64".
	Arch string `json:"arch"`
	// Infohash names the payload's torrent.
	Infohash Infohash `json:"infohash"`
	// PieceLength is the torrent's piece length in bytes.
	PieceLength int64 `json:"piece_length"`
	// Files is the payload in torrent order; Root comes first.
	Files []FileInfo `json:"files"`
}

// Lookup returns the payload file called name and its byte offset in the
// payload.
func (m *Manifest) Lookup(name string) (f FileInfo, offset int64, ok bool) {
	for _, f := range m.Files {
		if f.Name == name {
			return f, offset, true
		}
		offset += f.Size
	}
	return FileInfo{}, 0, false
}

// RootFile returns the root file system's entry.
func (m *Manifest) RootFile() FileInfo { return m.Files[0] }

// Size returns the payload's size in bytes.
func (m *Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// maxSize bounds what Read takes from a network peer or a damaged medium.
const maxSize = 1 << 20

// Read decodes and validates a manifest.
func Read(r io.Reader) (*Manifest, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("read manifest: larger than %d bytes", maxSize)
	}
	// A later format may have fields of other types, so this one is read first.
	var later struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(data, &later) == nil && later.Format > Format {
		return nil, fmt.Errorf("read manifest: %w", errLater(later.Format))
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return &m, nil
}

// Write encodes the manifest as indented JSON.
func (m *Manifest) Write(w io.Writer) error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(m)
}

func errLater(format int) error {
	return fmt.Errorf("format %d, and this program reads 1 to %d: a later VIVER built the image; use that one, or build the image again with this one", format, Format)
}

func (m *Manifest) validate() error {
	switch {
	case m.Format > Format:
		return errLater(m.Format)
	case m.Format < 1:
		return fmt.Errorf("format %d, and the first was 1", m.Format)
	case m.Name == "":
		return errors.New("no image name")
	case m.PieceLength <= 0 || m.PieceLength&(m.PieceLength-1) != 0:
		return fmt.Errorf("piece length %d is not a power of two", m.PieceLength)
	case len(m.Files) == 0 || m.Files[0].Name != Root:
		return fmt.Errorf("the first file must be %s", Root)
	}
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		if f.Name != path.Clean(f.Name) || path.IsAbs(f.Name) || f.Name == ".." || len(f.Name) > 2 && f.Name[:3] == "../" {
			return fmt.Errorf("file name %q leaves the image directory", f.Name)
		}
		if f.Size <= 0 {
			return fmt.Errorf("file %s has size %d", f.Name, f.Size)
		}
		if seen[f.Name] {
			return fmt.Errorf("file %s is listed twice", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}
