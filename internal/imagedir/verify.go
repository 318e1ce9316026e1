package imagedir

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

// Verified is the result of comparing an image with its description.
type Verified struct {
	Manifest *manifest.Manifest `json:"manifest"`
	// SignedBy is the ID of the key that signed the manifest and whose images
	// the image's initramfs takes; "" when the image is damaged.
	SignedBy string `json:"signed_by"`
	// Owner is that key's public half.
	Owner sign.PublicKey `json:"-"`
	// Trusted says that this key was compared with one that the caller trusts.
	Trusted bool `json:"trusted"`
	// Damage lists what is wrong; empty when the image is whole.
	Damage []Damage `json:"damage"`
}

// ErrNotOwner marks an image that was not signed with the key it was compared
// with.
var ErrNotOwner = errors.New("is not an image of this owner")

// Damage is one stretch of a file that is not what it should be.
type Damage struct {
	File string `json:"file"`
	// Offset of the first bad piece within the file, in bytes.
	Offset int64  `json:"offset"`
	What   string `json:"what"`
}

// Err returns an error that lists the damage, or nil.
func (v *Verified) Err() error {
	if len(v.Damage) == 0 {
		return nil
	}
	const most = 10
	var b strings.Builder
	for i, d := range v.Damage {
		if i == most {
			fmt.Fprintf(&b, "\n  - and %d more", len(v.Damage)-most)
			break
		}
		fmt.Fprintf(&b, "\n  - %s at byte %d: %s", d.File, d.Offset, d.What)
	}
	return fmt.Errorf("image %s is damaged; build or copy it again:%s", v.Manifest.Name, b.String())
}

// Verify compares every byte of the image in dir with its metainfo and manifest,
// and the manifest's signature with the owner's key and with the one in the
// image's initramfs. A zero owner leaves only the latter, which says that the
// image fits together and not whose it is. The error says that it could not be
// done, or that the image is not the owner's; damage is a result.
func Verify(ctx context.Context, dir string, owner sign.PublicKey, progress func(done, total int64)) (*Verified, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	image, m, info, err := readImage(dir, owner)
	if err != nil {
		return nil, err
	}
	v := &Verified{Manifest: m, Trusted: !owner.IsZero(), Damage: []Damage{}}
	if err := v.compare(ctx, dir, info, progress); err != nil || len(v.Damage) > 0 {
		return v, err
	}
	key, err := ownKey(dir, image)
	if err != nil {
		return nil, err
	}
	v.SignedBy, v.Owner = key.ID(), key
	return v, nil
}

// compare notes what is wrong with the files in dir.
func (v *Verified) compare(ctx context.Context, dir string, info *metainfo.Info, progress func(done, total int64)) error {
	whole := true
	for _, f := range v.Manifest.Files {
		fi, err := os.Stat(filepath.Join(dir, f.Name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			v.Damage = append(v.Damage, Damage{File: f.Name, What: "the file is missing"})
			whole = false
		case err != nil:
			return err
		case fi.Size() < f.Size:
			v.Damage = append(v.Damage, Damage{File: f.Name, Offset: fi.Size(), What: fmt.Sprintf("the file ends here, it should have %d bytes", f.Size)})
		case fi.Size() > f.Size:
			v.Damage = append(v.Damage, Damage{File: f.Name, Offset: f.Size, What: fmt.Sprintf("the file should end here, it has %d bytes", fi.Size())})
		}
	}
	if !whole {
		return nil
	}
	return v.checkBytes(ctx, dir, info, progress)
}

// readImage reads the description of the image in dir. Unless owner is zero it must be
// signed with that key.
func readImage(dir string, owner sign.PublicKey) (image description.Files, m *manifest.Manifest, info *metainfo.Info, err error) {
	image, err = description.Read(description.In(dir))
	switch {
	case errors.Is(err, description.ErrNotSigned):
		return image, nil, nil, fmt.Errorf("%s is not signed: %w; build the image again", dir, err)
	case err != nil:
		return image, nil, nil, fmt.Errorf("%s is no image: %w", dir, err)
	}
	if !owner.IsZero() {
		if err := image.SignedBy(owner); err != nil {
			return image, nil, nil, fmt.Errorf("%s %w: %w", dir, ErrNotOwner, err)
		}
	}
	if m, info, err = image.Decode(); err != nil {
		err = fmt.Errorf("%s: %w", dir, err)
	}
	return image, m, info, err
}

// checkBytes reads the payload once, as pieces and as files.
func (v *Verified) checkBytes(ctx context.Context, dir string, info *metainfo.Info, progress func(done, total int64)) error {
	p := payloadReader{dir: dir, files: info.Files, sum: sha256.New()}
	defer p.close()
	buf := make([]byte, info.PieceLength)
	var bad []int
	for i := range info.NumPieces() {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := buf[:info.PieceSize(i)]
		if err := p.read(piece); err != nil {
			return err
		}
		if sha1.Sum(piece) != info.PieceHash(i) {
			bad = append(bad, i)
		}
		progress(info.PieceOffset(i)+int64(len(piece)), info.Size)
	}
	p.close()
	v.locateDamage(info, bad, p.sums)
	return nil
}

// locateDamage turns bad pieces and digests into damage. A piece may span files: the
// digests say whose bytes are wrong, the first bad piece says where.
func (v *Verified) locateDamage(info *metainfo.Info, bad []int, sums []manifest.Digest) {
	explained := make(map[int]bool)
	for i, f := range info.Files {
		if sums[i] == v.Manifest.Files[i].SHA256 {
			continue
		}
		d := Damage{File: f.Name, What: "its SHA-256 is not the manifest's: " + sums[i].String()}
		for _, piece := range slices.Backward(bad) {
			begin := info.PieceOffset(piece)
			if begin < f.Offset+f.Size && begin+info.PieceSize(piece) > f.Offset {
				explained[piece] = true
				d.Offset = max(0, begin-f.Offset)
				d.What = fmt.Sprintf("piece %d has other bytes than the metainfo says", piece)
			}
		}
		if !v.hasDamage(f.Name) {
			v.Damage = append(v.Damage, d)
		}
	}
	for _, piece := range bad {
		if !explained[piece] {
			v.Damage = append(v.Damage, Damage{File: manifest.Metainfo, What: fmt.Sprintf("its hash of piece %d is not that of the bytes in the manifest", piece)})
		}
	}
}

func (v *Verified) hasDamage(name string) bool {
	return slices.ContainsFunc(v.Damage, func(d Damage) bool { return d.File == name })
}

// payloadReader reads an image's files as one stream; missing ends are zeros.
type payloadReader struct {
	dir   string
	files []metainfo.File
	open  *os.File
	left  int64 // of the open file, as described
	sum   hash.Hash
	sums  []manifest.Digest // of the files read to their end
}

func (p *payloadReader) read(buf []byte) error {
	for len(buf) > 0 {
		if p.left == 0 {
			if err := p.next(); err != nil {
				return err
			}
			continue
		}
		part := buf[:min(int64(len(buf)), p.left)]
		n, err := io.ReadFull(p.open, part)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		clear(part[n:])
		p.sum.Write(part)
		p.left -= int64(len(part))
		buf = buf[len(part):]
	}
	return nil
}

func (p *payloadReader) next() error {
	p.close()
	if len(p.files) == 0 {
		return io.ErrUnexpectedEOF
	}
	f, err := os.Open(filepath.Join(p.dir, p.files[0].Name))
	if err != nil {
		return err
	}
	p.open, p.left = f, p.files[0].Size
	p.files = p.files[1:]
	return nil
}

// close ends the open file and notes its digest.
func (p *payloadReader) close() {
	if p.open == nil {
		return
	}
	_ = p.open.Close() // it was only read
	p.open = nil
	p.sums = append(p.sums, manifest.Digest(p.sum.Sum(nil)))
	p.sum.Reset()
}
