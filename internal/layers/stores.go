package layers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// store is where a container engine keeps images and containers.
type store struct {
	dir      string
	programs []string // one of them means that the image has the engine
}

func stores() []store {
	return []store{
		{"var/lib/containers", []string{"usr/bin/podman", "usr/bin/buildah", "usr/bin/cri-o", "usr/bin/crio"}},
		{"var/lib/docker", []string{"usr/sbin/dockerd", "usr/bin/dockerd"}},
		{"var/lib/containerd", []string{"usr/bin/containerd", "usr/sbin/containerd", "usr/local/bin/containerd"}},
	}
}

// BindStores gives the container engines that the image has a place of their own
// beside the writable layer. Their images are overlays too, and the kernel takes
// no overlay for the upper layer of another; on what lies below, a tmpfs or the
// saved-data disk, it works. The place shares the writable layer's size and
// lasts as long as it does.
//
// It returns the directories, as the booted system sees them. What an error
// names is left as the image has it.
func (r *Root) BindStores(m OS) (bound []string, err error) {
	var errs []error
	target, err := os.OpenRoot(r.target)
	if err != nil {
		return nil, fmt.Errorf("find the container engines: %w", err)
	}
	defer target.Close()
	for _, s := range stores() {
		if !hasOne(target, s.programs) {
			continue
		}
		if err := r.bindStore(m, target, s.dir); err != nil {
			errs = append(errs, fmt.Errorf("a place for containers at /%s: %w", s.dir, err))
			continue
		}
		bound = append(bound, "/"+s.dir)
	}
	return bound, errors.Join(errs...)
}

func hasOne(root *os.Root, names []string) bool {
	for _, name := range names {
		if _, err := root.Lstat(name); err == nil {
			return true
		}
	}
	return false
}

func (r *Root) bindStore(m OS, target *os.Root, dir string) error {
	// Links inside the root may lead anywhere; a mount must not follow them out.
	if err := target.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if empty, err := isEmpty(target, dir); err != nil || !empty {
		return errors.Join(err, errors.New("it holds something already"))
	}
	beside, err := os.OpenRoot(r.writable)
	if err != nil {
		return err
	}
	defer beside.Close()
	own := filepath.Join("stores", filepath.Base(dir))
	if err := beside.MkdirAll(own, 0o711); err != nil {
		return err
	}
	at := filepath.Join(r.target, dir)
	if err := m.Mount(filepath.Join(r.writable, own), at, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// Containers hold set-user-ID programs, as the root does.
	if err := m.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		return errors.Join(err, m.Unmount(at, 0))
	}
	return nil
}

func isEmpty(root *os.Root, dir string) (bool, error) {
	info, err := root.Lstat(dir)
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, &fs.PathError{Op: "use", Path: dir, Err: unix.ENOTDIR}
	}
	f, err := root.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err = f.Readdirnames(1); errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
