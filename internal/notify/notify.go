// Package notify tells the followers of something that it has changed.
//
// It carries no values: a follower takes the newest state when it is ready for it.
// The invariant: a change waits for no follower, and a follower
// misses no change, however many it was too slow for become one.
package notify

import "sync"

// Notifier knows who follows. The zero value is ready, and safe for concurrent use.
type Notifier struct {
	mu        sync.Mutex // guards followers
	followers map[chan struct{}]struct{}
}

// Notify says that something has changed.
func (n *Notifier) Notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for ch := range n.followers {
		select {
		case ch <- struct{}{}:
		default: // it has yet to hear of the change before
		}
	}
}

// Watch returns a channel that holds a token whenever something has changed since
// the last one was taken. stop ends that and must be called.
func (n *Notifier) Watch() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.followers == nil {
		n.followers = make(map[chan struct{}]struct{})
	}
	n.followers[ch] = struct{}{}
	return ch, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.followers, ch)
	}
}
