package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/sleep"
)

// slotCount is how many machines may boot or compute at a time on this host, whoever
// started them. A boot works for about half of its seconds and waits in the others, so
// three share two cores without missing their deadlines.
const slotCount = 3

// slots are advisory locks on files in a directory, so they hold between
// processes and end with them.
type slots struct{ files []*os.File }

// takeSlots waits for room for n machines. Whoever wants two or more gets the
// host for itself: it takes every lock, in the same order as everyone else who
// does, so nobody waits in a circle and those who want one machine cannot starve
// it.
func takeSlots(ctx context.Context, dir string, n int) (*slots, error) {
	s := &slots{}
	all := make([]int, slotCount)
	for i := range all {
		all[i] = i
	}
	if n == 1 {
		if err := s.takeOne(ctx, dir, all); err != nil {
			return nil, err
		}
		return s, nil
	}
	for _, i := range all {
		if err := s.takeOne(ctx, dir, []int{i}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// takeOne waits until one of the locks is free and keeps it; on failure it
// gives back everything.
func (s *slots) takeOne(ctx context.Context, dir string, any []int) error {
	for {
		for _, i := range any {
			f, err := openShared(filepath.Join(dir, fmt.Sprintf("viver-vm-slot-%d", i)))
			if err != nil {
				s.release()
				return err
			}
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			if err == nil {
				s.files = append(s.files, f)
				return nil
			}
			f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				s.release()
				return fmt.Errorf("lock a machine slot: %w", err)
			}
		}
		if err := sleep.For(ctx, 200*time.Millisecond); err != nil {
			s.release()
			return fmt.Errorf("wait for other machines on this host to end: %w", err)
		}
	}
}

// openShared opens a file that any user of the host may have created; reading
// is all that a lock needs.
func openShared(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	}
	if err != nil {
		return nil, fmt.Errorf("slot: %w", err)
	}
	return f, nil
}

func (s *slots) release() {
	for _, f := range s.files {
		f.Close()
	}
	s.files = nil
}
