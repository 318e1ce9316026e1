// Package notify wakes those who follow a changing value.
//
// It carries no values: a follower takes the newest state when it is ready for it.
// The invariant: a change waits for no follower, and a follower
// misses no change, however many it was too slow for become one.
package notify

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Signal wakes one goroutine, once for all that happened since it last woke.
type Signal chan struct{}

// NewSignal returns a signal that has not been sent.
func NewSignal() Signal { return make(Signal, 1) }

// Send sends the signal. It waits for nobody.
func (s Signal) Send() {
	select {
	case s <- struct{}{}:
	default: // one is waiting already
	}
}

// FollowKernel sends the signal once it listens to these groups of a netlink protocol, and
// again after each report of the kernel's to one of them, until ctx ends or the reports
// are lost. What is in a report is not read.
func (s Signal) FollowKernel(ctx context.Context, protocol int, groups ...uint) error {
	reports, err := nl.Subscribe(protocol, groups...)
	if err != nil {
		return fmt.Errorf("subscribe to the kernel's reports: %w", err)
	}
	closeOnce := sync.OnceFunc(reports.Close)
	defer closeOnce()
	stop := context.AfterFunc(ctx, closeOnce)
	defer stop()
	for {
		s.Send()
		// ENOBUFS: more happened than the socket could hold.
		if _, _, err := reports.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// Notifier knows who follows. The zero value is ready, and safe for concurrent use.
type Notifier struct {
	mu        sync.Mutex // guards followers
	followers map[Signal]struct{}
}

// Notify says that something has changed.
func (n *Notifier) Notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for follower := range n.followers {
		follower.Send()
	}
}

// Watch returns a channel that holds a token whenever something has changed since
// the last one was taken. stop ends that and must be called.
func (n *Notifier) Watch() (changed <-chan struct{}, stop func()) {
	follower := NewSignal()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.followers == nil {
		n.followers = make(map[Signal]struct{})
	}
	n.followers[follower] = struct{}{}
	return follower, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.followers, follower)
	}
}
