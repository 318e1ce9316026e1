package thread

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Mounts are those of a thread that nobody else sees. They end with the process at the latest, also
// when that is killed.
type Mounts struct {
	work chan func()
	done chan error
}

// OpenMounts has a thread see an empty file system at dir, runs setup on it, and keeps it for Do.
// Only root may do that.
func OpenMounts(dir string, setup func() error) (*Mounts, error) {
	m := &Mounts{work: make(chan func()), done: make(chan error, 1)}
	opened := make(chan error, 1)
	go func() {
		m.done <- Run(func() error {
			err := private(dir)
			isMounted := err == nil
			if isMounted {
				err = setup()
			}
			opened <- err
			for do := range m.work {
				do()
			}
			if isMounted { // at once: the end of the thread would do it a moment later
				return unix.Unmount(dir, unix.MNT_DETACH)
			}
			return nil
		})
	}()
	if err := <-opened; err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Do runs f where the mounts are seen. Files that it opens can be read anywhere, until Close.
func (m *Mounts) Do(f func() error) error {
	result := make(chan error)
	m.work <- func() { result <- f() }
	return <-result
}

// Close unmounts them all.
func (m *Mounts) Close() error {
	close(m.work)
	return <-m.done
}

// private gives this thread mounts of its own, with an empty file system at dir. They end
// with the thread.
func private(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		if errors.Is(err, unix.EPERM) {
			return errors.New("only root can mount file systems, and in a container mostly not even root: run it with sudo")
		}
		return fmt.Errorf("mount for this program only: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from others: %w", err)
	}
	if err := unix.Mount("viver", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "mode=700,size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	return nil
}
