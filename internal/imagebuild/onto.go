package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"viver.lan/internal/description"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/squashdelta"
)

// maxDead is how much of the old image's root file system may be of no use to the new
// one, as a part of 1 in so many. Each machine keeps and passes on the dead bytes as
// it does the others.
const maxDead = 4

// base is the image that a new one is built onto.
type base struct {
	dir  string
	info *metainfo.Info
}

// openBase checks the image to build onto, to the last byte: what is wrong in it would be
// signed again. It sets the piece length. There is none when none was named.
func (c *Config) openBase(ctx context.Context) (*base, error) {
	if c.Onto == "" {
		return nil, nil
	}
	b, err := c.readBase(ctx)
	if err != nil {
		return nil, fmt.Errorf("the image to build onto: %w", err)
	}
	return b, nil
}

func (c *Config) readBase(ctx context.Context) (*base, error) {
	v, err := imagedir.Verify(ctx, c.Onto, c.Key.Public(), c.task("check the old image"))
	if err == nil {
		err = v.Err()
	}
	if err != nil {
		return nil, err
	}
	b := &base{dir: c.Onto}
	if b.info, err = readInfo(c.Onto); err != nil {
		return nil, err
	}
	if c.PieceLength != 0 && c.PieceLength != b.info.PieceLength {
		return nil, fmt.Errorf("%s has pieces of %d bytes, and the new one would have %d: no machine could use the former for the latter", c.Onto, b.info.PieceLength, c.PieceLength)
	}
	c.PieceLength = b.info.PieceLength
	return b, nil
}

func readInfo(dir string) (*metainfo.Info, error) {
	files, err := description.Read(description.In(dir))
	if err != nil {
		return nil, err
	}
	return metainfo.Parse(files.Metainfo)
}

// share has the root file system in dir begin with the blocks of the old one's, unless too
// many of them would be dead; it says what came of it.
func (b *base) share(ctx context.Context, dir string, progress func(done, total int64)) (notes []string, err error) {
	name := filepath.Join(dir, manifest.Root)
	fresh := name + ".fresh"
	if err := os.Rename(name, fresh); err != nil {
		return nil, err
	}
	plan, closeBoth, err := b.compare(ctx, fresh, progress)
	if err != nil {
		return nil, err
	}
	defer closeBoth()
	if plan.Dead > plan.Old/maxDead {
		note := fmt.Sprintf("built without it: %d of %d MiB of the root file system of %s would be of no use any more", plan.Dead>>20, plan.Old>>20, b.dir)
		return []string{note}, os.Rename(fresh, name)
	}
	if err := b.write(ctx, name, plan); err != nil {
		return nil, err
	}
	if plan.Dead > 0 {
		notes = append(notes, fmt.Sprintf("%d KiB of it are what %s has and the source has not: no file leads there, but who searches the image's bytes finds it; a build without --onto is rid of it", (plan.Dead+1023)>>10, b.dir))
	}
	return notes, os.Remove(fresh)
}

func (b *base) compare(ctx context.Context, fresh string, progress func(done, total int64)) (plan *squashdelta.Plan, closeBoth func(), err error) {
	var images [2]squashdelta.Image
	var files []*os.File
	closeFiles := func() {
		for _, f := range files {
			_ = f.Close() // it was only read
		}
	}
	for i, name := range []string{filepath.Join(b.dir, manifest.Root), fresh} {
		f, err := os.Open(name)
		if err != nil {
			closeFiles()
			return nil, nil, err
		}
		files = append(files, f)
		info, err := f.Stat()
		if err != nil {
			closeFiles()
			return nil, nil, err
		}
		images[i] = squashdelta.Image{ReaderAt: f, Size: info.Size()}
	}
	plan, err = squashdelta.Compare(ctx, images[0], images[1], progress)
	if err != nil {
		closeFiles()
		return nil, nil, err
	}
	return plan, func() { plan.Close(); closeFiles() }, nil
}

// write writes the root file system. What follows it in the payload has the same place
// within a piece as in the old image, so that it is cut into the same pieces.
func (b *base) write(ctx context.Context, name string, plan *squashdelta.Plan) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := plan.Write(ctx, f)
	if err != nil {
		return err
	}
	old, _ := b.info.Lookup(manifest.Root)
	length := b.info.PieceLength
	return f.Truncate(size + ((old.Size-size)%length+length)%length)
}

// fetched says what a machine that has the old image lacks of the new one.
func (b *base) fetched(dir string) (string, error) {
	info, err := readInfo(dir)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a machine that has %s fetches %.1f of %d MiB", b.dir, float64(info.Missing(b.info))/(1<<20), info.Size>>20), nil
}
