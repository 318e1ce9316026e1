package main

import (
	"testing"
	"testing/synctest"
	"time"

	"viver.lan/internal/machine/machinetest"
)

// A thread that stays in the kernel hangs; one that was there for a moment does not.
func TestHangs(t *testing.T) {
	for name, c := range map[string]struct {
		stat  string
		until time.Duration // when the thread is back; 0 for never
		want  bool
	}{
		"none":           {"12 (uinit) S 1 1", 0, false},
		"a dead disk":    {"12 (uinit) D 1 1", 0, true},
		"for a moment":   {"12 (uinit) D 1 1", 300 * time.Millisecond, false},
		"an odd name":    {"12 (D) D) R 1 1", 0, false},
		"no stat at all": {"", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := machinetest.New(t, map[string]string{"/proc/self/task/1/stat": "1 (uinit) S 0 1", "/proc/self/task/12/stat": c.stat})
				n := newNode()
				n.host.Root = m.Root
				if c.until > 0 {
					time.AfterFunc(c.until, func() { m.Put(t, "/proc/self/task/12/stat", "12 (uinit) S 1 1") })
				}
				if got := n.hangs(t.Context()); got != c.want {
					t.Errorf("%v, want %v", got, c.want)
				}
			})
		})
	}
}
