package imagedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/description"
	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
)

// maxDepth is how far below a directory images are looked for: nobody wants all of a disk
// read by accident.
const maxDepth = 4

// Summary is what an image says of itself. Its bytes were not compared with that.
type Summary struct {
	Dir      string             `json:"dir"`
	Manifest *manifest.Manifest `json:"manifest,omitempty"`
	// SignedBy is the ID of the key that the image's initramfs has and that signed the
	// manifest; "" when Problem says why not.
	SignedBy string `json:"signed_by"`
	Problem  string `json:"problem,omitempty"`
	// Pieces of the payload.
	Pieces int `json:"pieces,omitempty"`
}

// Summarize reads the description of the image in dir.
func Summarize(dir string) (*Summary, error) {
	s := &Summary{Dir: dir}
	files, err := description.Read(description.In(dir))
	if err != nil && !errors.Is(err, description.ErrNotSigned) {
		return nil, fmt.Errorf("%s is no image: %w", dir, err)
	}
	var info *metainfo.Info
	var bad error
	if s.Manifest, info, bad = files.Decode(); bad != nil {
		return nil, fmt.Errorf("%s: %w", dir, bad)
	}
	s.Pieces = info.NumPieces()
	if err != nil {
		s.Problem = "not signed"
		return s, nil
	}
	key, err := ownKey(dir, files)
	if err != nil {
		s.Problem = err.Error()
		return s, nil
	}
	s.SignedBy = key.ID()
	return s, nil
}

// Find returns the images in and below directories, by name. What lies in an image, or
// in a hidden directory, is not looked at; a directory that cannot be read is ignored.
func Find(ctx context.Context, dirs []string) ([]*Summary, error) {
	found := []*Summary{}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		// A link is followed where it was named, as by a slash behind it.
		err := filepath.WalkDir(dir+"/", func(name string, e fs.DirEntry, err error) error {
			name = filepath.Clean(name)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && e != nil && e.IsDir():
				return fs.SkipDir
			case err != nil || !e.IsDir():
				return nil
			}
			below, _ := filepath.Rel(dir, name) // WalkDir stays below dir
			if below != "." && strings.HasPrefix(filepath.Base(name), ".") {
				return fs.SkipDir
			}
			if !isImage(name) {
				if below != "." && strings.Count(below, "/")+1 >= maxDepth {
					return fs.SkipDir
				}
				return nil
			}
			s, err := Summarize(name)
			if err != nil {
				s = &Summary{Dir: name, Problem: err.Error()}
			}
			found = append(found, s)
			return fs.SkipDir
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b *Summary) int { return strings.Compare(a.Dir, b.Dir) })
	return slices.CompactFunc(found, func(a, b *Summary) bool { return a.Dir == b.Dir }), nil
}

// isImage reports whether a directory passes for an image.
func isImage(dir string) bool {
	for _, name := range []string{manifest.File, manifest.Root} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil || !fi.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// Remove deletes the image in dir, with the files named in beside, which stand beside an image
// and are no part of it. It refuses what is no image, and one with other files in it:
// somebody put them there. When it is killed, no part passes for an image.
func Remove(dir string, beside ...string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() || !isImage(dir) {
		return fmt.Errorf("%s is no image: want a directory with %s and %s", dir, manifest.File, manifest.Root)
	}
	others, err := strangers(dir, beside)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return fmt.Errorf("%s has files that are no part of an image: %s; move them elsewhere first", dir, strings.Join(others, ", "))
	}
	// The name is that of a build that was killed: the next build clears it away.
	parent, base := filepath.Split(dir)
	gone, err := os.MkdirTemp(parent, "."+base+".*"+durable.Suffix)
	if err != nil {
		return err
	}
	if err := unix.Rename(dir, gone); err != nil { // that of package os replaces no directory
		return errors.Join(&os.LinkError{Op: "rename", Old: dir, New: gone, Err: err}, os.Remove(gone))
	}
	return os.RemoveAll(gone)
}

// strangers lists the files in the directory of an image that are not its own.
func strangers(dir string, beside []string) (names []string, err error) {
	own := append([]string{manifest.File, manifest.Signature, manifest.Metainfo}, beside...)
	if text, err := os.ReadFile(filepath.Join(dir, manifest.File)); err == nil {
		if m, err := manifest.Read(strings.NewReader(string(text))); err == nil {
			for _, f := range m.Files {
				own = append(own, f.Name)
			}
		}
	}
	own = append(own, payload(dir)...)
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if name, err = filepath.Rel(dir, name); err == nil && !slices.Contains(own, name) {
			names = append(names, name)
		}
		return err
	})
	return names, err
}
