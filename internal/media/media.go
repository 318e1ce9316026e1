// Package media knows what a boot medium looks like: the names and marker on
// it, and where its settings volume lies.
//
// A medium is one hybrid image for CD and USB: an ISO 9660 file system labelled
// Label over the whole disk, with a marker file and image directories, and an
// appended FAT partition labelled SettingsLabel that any PC can edit. A kernel
// reads no partition table from a CD, so this package does. It mounts nothing
// and writes no media (package bootmedium does). The invariant: any bytes at
// all give a result or an error, because they come from whatever disk is in
// the machine.
package media

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"viver.lan/internal/manifest"
)

// Format is the version of the medium's layout.
const Format = 1

// Volume labels.
const (
	// Label is the volume label of the ISO 9660 file system.
	Label = "VIVER"
	// SettingsLabel is the volume label of the FAT partition.
	SettingsLabel = "VIVERCONF"
	// DataLabel is the volume label of the file system for saved data that a stick may
	// have behind the medium, and the name of its partition.
	DataLabel = "VIVERDATA"
)

// Paths on the ISO 9660 file system.
const (
	// MarkerPath is the file that makes a file system a boot medium.
	MarkerPath = "viver/medium.json"
	// ImagePath is the image directory, see package manifest.
	ImagePath = "viver/image"
	// imagesPath holds the other images of a medium with several, see ImageDir.
	imagesPath = "viver/images"
)

// Paths on the settings volume.
const (
	// SettingsPath is the operator's settings file.
	SettingsPath = "viver/viver.toml"
	// RunesPath is the directory of the operator's own runes.
	RunesPath = "viver/runes"
)

// SettingsSize is the size of the settings volume in bytes: the smallest that
// every firmware and system takes for FAT16 without doubt, with room for runes. No
// medium is smaller.
const SettingsSize = 32 << 20

// Argument is the kernel argument that names the medium to a first node, and
// ImageArgument the one that names the image, where a medium has several.
const (
	Argument      = "viver.medium"
	ImageArgument = "viver.image"
)

// Marker is the content of the file at MarkerPath. It tells one medium from
// another when a machine has two.
type Marker struct {
	Format int `json:"format"`
	// ID is 16 hexadecimal digits, new for every medium built.
	ID string `json:"id"`
	// Image is the infohash of the image at ImagePath, the first of several.
	Image manifest.Infohash `json:"image"`
}

// ImageDir returns the directory of an image on a medium whose first image is first.
// The others are in directories named after their infohashes, so that no name on the
// medium comes from a name that somebody has given.
func ImageDir(first, image manifest.Infohash) string {
	if image == first {
		return ImagePath
	}
	return imagesPath + "/" + image.String()
}

// NewMarker returns a marker with an ID of its own.
func NewMarker(image manifest.Infohash) Marker {
	var id [8]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	return Marker{Format: Format, ID: hex.EncodeToString(id[:]), Image: image}
}

// maxMarker bounds what ReadMarker takes from a stranger's disk.
const maxMarker = 4096

// ReadMarker decodes and checks a marker file.
func ReadMarker(r io.Reader) (Marker, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxMarker+1))
	if err != nil {
		return Marker{}, fmt.Errorf("read medium marker: %w", err)
	}
	if len(data) > maxMarker {
		return Marker{}, fmt.Errorf("read medium marker: larger than %d bytes", maxMarker)
	}
	var m Marker
	if err := json.Unmarshal(data, &m); err != nil {
		return Marker{}, fmt.Errorf("read medium marker: %w", err)
	}
	if m.Format != Format {
		return Marker{}, fmt.Errorf("read medium marker: format %d, this program reads format %d", m.Format, Format)
	}
	if id, err := hex.DecodeString(m.ID); err != nil || len(id) != 8 {
		return Marker{}, fmt.Errorf("read medium marker: id %q is not 16 hexadecimal digits", m.ID)
	}
	return m, nil
}

// Write encodes the marker as one line of JSON.
func (m Marker) Write(w io.Writer) error {
	return json.NewEncoder(w).Encode(m)
}

// Where an ISO 9660 file system has its primary volume descriptor (ECMA-119,
// 8.4) and the volume identifier within it.
const (
	isoDescriptorAt = 16 * isoBlock
	isoLabelAt      = 40
	isoLabelLen     = 32
	isoSizeAt       = 80 // in blocks, which have 2048 bytes on all that we make
	isoBlock        = 2048
)

// ErrNotISO says that a device holds no ISO 9660 file system.
var ErrNotISO = errors.New("no ISO 9660 file system")

// ISOLabel returns the volume label of the ISO 9660 file system on r.
func ISOLabel(r io.ReaderAt) (string, error) {
	d, err := isoDescriptor(r)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(d[isoLabelAt:][:isoLabelLen]), " \x00"), nil
}

// ISOSize returns the size in bytes that the ISO 9660 file system on r says it has. It is
// that of the whole medium, with the partitions in it.
func ISOSize(r io.ReaderAt) (int64, error) {
	d, err := isoDescriptor(r)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(d[isoSizeAt:])) * isoBlock, nil
}

// isoDescriptor reads the beginning of the primary volume descriptor.
func isoDescriptor(r io.ReaderAt) (d [isoSizeAt + 4]byte, err error) {
	if _, err := r.ReadAt(d[:], isoDescriptorAt); err != nil {
		if errors.Is(err, io.EOF) {
			return d, ErrNotISO
		}
		return d, fmt.Errorf("read ISO 9660 volume descriptor: %w", err)
	}
	if d[0] != 1 || string(d[1:6]) != "CD001" {
		return d, ErrNotISO
	}
	return d, nil
}
