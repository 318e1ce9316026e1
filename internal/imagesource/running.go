package imagesource

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/livesnapshot"
)

// openRunning opens the system that runs at root: from a snapshot where there is one, else live.
func (s *Source) openRunning(ctx context.Context, root, work string) error {
	s.Kind = "the running system"
	snapshot, err := livesnapshot.Open(ctx, root, work)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		if !errors.Is(err, livesnapshot.ErrNone) {
			s.Notes = append(s.Notes, fmt.Sprintf("it is read while it changes: %v", err))
		}
		s.scan = func(ctx context.Context, choice *exclude.Choice, skip []string) (*imagetree.Tree, error) {
			return imagetree.Scan(ctx, root, choice, skip...)
		}
		return nil
	}
	s.closeLater(snapshot)
	s.Kind += ", from a snapshot"
	s.Notes = append(s.Notes, snapshot.Notes...)
	s.scan = func(ctx context.Context, choice *exclude.Choice, skip []string) (tree *imagetree.Tree, err error) {
		err = snapshot.Do(func(dir string) (err error) {
			tree, err = imagetree.Scan(ctx, dir, choice, inside(dir, root, skip)...)
			return err
		})
		return tree, err
	}
	return nil
}

// inside returns where host paths are in a snapshot of root at dir.
func inside(dir, root string, paths []string) (list []string) {
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		if rel, err := filepath.Rel(root, abs); err == nil && filepath.IsLocal(rel) {
			list = append(list, filepath.Join(dir, rel))
		}
	}
	return list
}
