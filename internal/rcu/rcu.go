// Package rcu shortens what the kernel waits while a machine boots. Whoever unloads,
// unmounts, moves a process to another control group or closes a raw socket waits until
// nobody reads what was there before: for tens of milliseconds, dozens of times, one after
// the other, with nothing to do. The kernel can interrupt the other processors
// instead, as it does until it starts process 1; on a machine that works, that would
// disturb what runs there.
package rcu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// file says whether to interrupt; the kernel takes any number but 0 for yes.
const file = "/sys/kernel/rcu_expedited"

// ours tells that we have set it: what others set, by rcupdate.rcu_expedited=1 or later,
// is theirs.
const ours, no = "2", "0"

// machine is what this package needs of it.
type machine interface{ Path(name string) string }

// Expedite has the kernel wait briefly, until Relax.
func Expedite(m machine) error { return change(m, no, ours) }

// Relax ends what Expedite began, also in another process.
func Relax(m machine) error { return change(m, ours, no) }

func change(m machine, from, to string) error {
	is, err := os.ReadFile(m.Path(file))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a kernel for one processor
		return nil
	case err == nil && strings.TrimSpace(string(is)) != from:
		return nil
	case err == nil:
		err = os.WriteFile(m.Path(file), []byte(to), 0o644)
	}
	if err != nil {
		return fmt.Errorf("how long the kernel waits for its readers: %w", err)
	}
	return nil
}
