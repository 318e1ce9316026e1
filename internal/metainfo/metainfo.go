// Package metainfo makes and reads the torrent metainfo (BEP 3) of an image:
// the list of its files and the SHA-1 of each of its pieces.
//
// It is the one place that knows how a payload is cut into pieces. It opens no
// sockets and keeps no data. The invariant: an Info that Parse or Create
// returned is consistent, so its sizes add up, its file names stay inside the
// image directory, and every piece from 0 to NumPieces()-1 has a size and a
// hash.
package metainfo

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/anacrolix/torrent/bencode"
	ametainfo "github.com/anacrolix/torrent/metainfo"

	"viver.lan/internal/manifest"
)

// Bounds of what is taken for an image. They keep a damaged or hostile
// metainfo from making a node allocate or loop without end.
const (
	// MinPieceLength and MaxPieceLength bound the piece length in bytes.
	MinPieceLength = 16 << 10
	MaxPieceLength = 16 << 20
	// MaxPieces bounds the number of pieces: 128 GiB in pieces of 128 KiB.
	MaxPieces = 1 << 20
	maxFiles  = 1 << 16
)

// DefaultPieceLength is the piece length of images that are not large, in bytes: small,
// because a demand read of 4 KiB has to wait for the whole piece.
const DefaultPieceLength = 128 << 10

// manyPieces is the number of pieces from which on longer ones cost less. All nodes
// know each piece, and whenever a node comes or goes each computes for all of them who
// keeps them: docs/images.md has what that costs.
const manyPieces = 1 << 16

// PieceLengthFor returns the piece length for a payload of that size in bytes.
func PieceLengthFor(size int64) int64 {
	length := int64(DefaultPieceLength)
	for length < MaxPieceLength && size > manyPieces*length {
		length *= 2
	}
	return length
}

// CheckPieceLength says of a length that no payload has such pieces.
func CheckPieceLength(length int64) error {
	if length < MinPieceLength || length > MaxPieceLength || length&(length-1) != 0 {
		return fmt.Errorf("piece length %d, want a power of two from %d to %d", length, MinPieceLength, MaxPieceLength)
	}
	return nil
}

// File is one file of the payload.
type File struct {
	// Name is the slash-separated path inside the image directory.
	Name string
	// Size in bytes.
	Size int64
	// Offset of the file's first byte in the payload.
	Offset int64
}

// Info is what a torrent's info dictionary says, in the terms of this house.
// It is immutable and safe for concurrent use.
type Info struct {
	// Infohash names the payload on the wire.
	Infohash manifest.Infohash
	// Name of the image, and of the directory that other clients download to.
	Name string
	// PieceLength in bytes; only the last piece may be shorter.
	PieceLength int64
	// Size of the payload in bytes.
	Size int64
	// Files in payload order.
	Files []File

	hashes []byte // sha1.Size bytes per piece
}

// NumPieces returns the number of pieces.
func (in *Info) NumPieces() int { return len(in.hashes) / sha1.Size }

// PieceSize returns the size of piece i in bytes.
func (in *Info) PieceSize(i int) int64 {
	return min(in.PieceLength, in.Size-in.PieceOffset(i))
}

// PieceOffset returns the offset of piece i in the payload.
func (in *Info) PieceOffset(i int) int64 { return int64(i) * in.PieceLength }

// PieceHash returns the SHA-1 of piece i.
func (in *Info) PieceHash(i int) [sha1.Size]byte {
	return [sha1.Size]byte(in.hashes[i*sha1.Size:])
}

// Verify reports whether the concatenation of parts is piece i.
func (in *Info) Verify(i int, parts ...[]byte) bool {
	h := sha1.New()
	for _, p := range parts {
		h.Write(p)
	}
	var sum [sha1.Size]byte
	h.Sum(sum[:0])
	return sum == in.PieceHash(i)
}

// Lookup returns the payload file called name.
func (in *Info) Lookup(name string) (File, bool) {
	for _, f := range in.Files {
		if f.Name == name {
			return f, true
		}
	}
	return File{}, false
}

// Parse reads a metainfo file (the content of image.torrent).
func Parse(data []byte) (*Info, error) {
	in, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read metainfo: %w", err)
	}
	return in, nil
}

func parse(data []byte) (*Info, error) {
	var mi struct {
		Info bencode.Bytes `bencode:"info"`
	}
	if err := Unmarshal(data, &mi); err != nil {
		return nil, err
	}
	if len(mi.Info) == 0 {
		return nil, errors.New("no info dictionary")
	}
	var raw ametainfo.Info
	if err := Unmarshal(mi.Info, &raw); err != nil {
		return nil, fmt.Errorf("info dictionary: %w", err)
	}
	in, err := fromRaw(&raw)
	if err != nil {
		return nil, err
	}
	in.Infohash = sha1.Sum(mi.Info)
	return in, nil
}

func fromRaw(raw *ametainfo.Info) (*Info, error) {
	in := &Info{Name: raw.Name, PieceLength: raw.PieceLength, hashes: raw.Pieces}
	switch {
	case !plainName(in.Name):
		return nil, fmt.Errorf("image name %q cannot be a directory name", in.Name)
	case CheckPieceLength(in.PieceLength) != nil:
		return nil, CheckPieceLength(in.PieceLength)
	case len(raw.Files) == 0 && raw.Length <= 0:
		return nil, errors.New("no files")
	case len(raw.Files) > maxFiles:
		return nil, fmt.Errorf("%d files, want at most %d", len(raw.Files), maxFiles)
	}
	if len(raw.Files) == 0 { // BEP 3's single-file form
		in.Files = []File{{Name: in.Name, Size: raw.Length}}
		in.Size = raw.Length
	}
	for _, f := range raw.Files {
		name := strings.Join(f.Path, "/")
		for _, part := range f.Path {
			if !plainName(part) {
				return nil, fmt.Errorf("file name %q leaves the image directory", name)
			}
		}
		if name == "" || f.Length <= 0 || f.Length > math.MaxInt64-in.Size {
			return nil, fmt.Errorf("file %q has size %d", name, f.Length)
		}
		in.Files = append(in.Files, File{Name: name, Size: f.Length, Offset: in.Size})
		in.Size += f.Length
	}
	// The division comes first: in.Size may be near the largest int64.
	pieces := in.Size / in.PieceLength
	if in.Size%in.PieceLength != 0 {
		pieces++
	}
	if pieces > MaxPieces {
		return nil, fmt.Errorf("%d pieces, want at most %d: use longer pieces", pieces, MaxPieces)
	}
	if int64(len(raw.Pieces)) != pieces*sha1.Size {
		return nil, fmt.Errorf("%d bytes of piece hashes, want %d for %d bytes in pieces of %d", len(raw.Pieces), pieces*sha1.Size, in.Size, in.PieceLength)
	}
	return in, nil
}

// plainName reports whether s names one entry of a directory.
func plainName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00") && path.Clean(s) == s
}
