package imagesource

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"

	"viver.lan/internal/imagetree"
)

// digest computes a digest that is expected.
type digest struct {
	hash.Hash
	want string
}

func newDigest(want string) *digest {
	if strings.HasPrefix(want, "sha512:") {
		return &digest{sha512.New(), want}
	}
	return &digest{sha256.New(), want}
}

func (d *digest) check() error {
	algorithm, _, _ := strings.Cut(d.want, ":")
	if got := algorithm + ":" + hex.EncodeToString(d.Sum(nil)); got != d.want {
		return fmt.Errorf("it is damaged: its digest is %s, want %s", got, d.want)
	}
	return nil
}

// openLayers makes the layers of an image archives that can be read at any place. What
// is compressed is unpacked; each byte is held against its digest.
func (s *Source) openLayers(ctx context.Context, o Options, from store, c container) ([]imagetree.Archive, error) {
	parts := make([]*io.SectionReader, len(c.layers))
	var total int64
	for i, l := range c.layers {
		part, err := from.open(l.name)
		if err != nil {
			return nil, missing(err, fmt.Sprintf("layer %d (%s)", i+1, l.name))
		}
		if l.size >= 0 && part.Size() != l.size {
			return nil, fmt.Errorf("layer %d (%s) has %d bytes, want %d", i+1, l.name, part.Size(), l.size)
		}
		parts[i] = part
		total += part.Size()
	}
	if d, ok := from.(*dirStore); ok {
		s.room = allow(d.size)
	}
	var list []imagetree.Archive
	done := o.progress("read the layers", total)
	for i, l := range c.layers {
		a, err := s.openLayer(ctx, o, l, parts[i], done)
		if err != nil {
			return nil, fmt.Errorf("layer %d (%s): %w", i+1, l.name, err)
		}
		a.Name = fmt.Sprintf("layer %d", i+1)
		list = append(list, a)
	}
	return list, nil
}

func (s *Source) openLayer(ctx context.Context, o Options, l blob, data *io.SectionReader, done func(int)) (a imagetree.Archive, err error) {
	if l.digest != "" {
		if err := checkDigest(ctx, data, l.digest); err != nil {
			return a, err
		}
	}
	kind, err := identifyAt(data)
	if err != nil {
		return a, err
	}
	if !isCompressed(kind) {
		done(int(data.Size()))
		if l.diffID == l.digest { // it was checked
			return imagetree.Archive{Data: data, Size: data.Size()}, nil
		}
		return imagetree.Archive{Data: data, Size: data.Size()}, checkDigest(ctx, data, l.diffID)
	}
	f, err := unpack(ctx, o.Work, s.room, kind, data, done)
	if err != nil {
		return a, err
	}
	s.closeLater(f)
	if data, err = whole(f); err != nil {
		return a, err
	}
	return imagetree.Archive{Data: data, Size: data.Size()}, checkDigest(ctx, data, l.diffID)
}

// checkDigest reads all of a blob.
func checkDigest(ctx context.Context, data *io.SectionReader, want string) error {
	d := newDigest(want)
	if _, err := io.Copy(d, &countingReader{ctx: ctx, r: io.NewSectionReader(data, 0, data.Size())}); err != nil {
		return err
	}
	return d.check()
}
