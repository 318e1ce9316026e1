package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"viver.lan/internal/sleep"
)

const (
	// watchEvery is the time between two statuses for one follower, at least.
	watchEvery = time.Second
	// aliveEvery is after how long a status is sent that nobody said has changed. So
	// silence means that the daemon hangs, and a follower gets what changes without
	// notice: ages, and what the kernel is asked for (room, carrier, firewall rules).
	aliveEvery = 5 * time.Second
	// maxSilence is how long a follower waits for a line.
	maxSilence = 25 * time.Second
	// readWithin is how long a follower may take to read a status.
	readWithin = 30 * time.Second
	// retryEvery is the time between two attempts to reach a daemon that is gone.
	retryEvery = 500 * time.Millisecond
)

// watch sends what status returns to one follower: at once, whenever it is another one,
// and aliveEvery after the last. A follower that is slow gets the newest when it has read
// the last; nobody waits for it.
func watch(ctx context.Context, d Daemon, status func() Status, send func(*Status) error) error {
	changed, stop := d.Watch()
	defer stop()
	var last *Status
	var sent time.Time
	for {
		if now := status(); last == nil || time.Since(sent) >= aliveEvery || !reflect.DeepEqual(now, *last) {
			last = &now
			if err := send(last); err != nil {
				return err
			}
			sent = time.Now()
		}
		if err := sleep.For(ctx, watchEvery); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(time.Until(sent.Add(aliveEvery))):
		}
	}
}

// sendTo returns a function that writes a status as a line of JSON.
func sendTo(w http.ResponseWriter) func(*Status) error {
	to, lines := http.NewResponseController(w), json.NewEncoder(w)
	return func(s *Status) error {
		if err := to.SetWriteDeadline(time.Now().Add(readWithin)); err != nil {
			return err
		}
		if err := lines.Encode(s); err != nil {
			return err
		}
		return to.Flush()
	}
}

// Watch calls take with the daemon's status, at once and whenever it has changed,
// until ctx ends or take returns an error, which it returns then. While no daemon
// answers it tries again and again, and take gets the reason, once, and no status; so
// it does when the daemon says nothing for half a minute.
func (c *Client) Watch(ctx context.Context, take func(*Status, error) error) error {
	return c.keepFollowing(ctx, "watch", take)
}

// WatchMembers is Watch for those who need no more than Daemon.MemberStatus. While a disk
// is used, the whole status is another one every second.
func (c *Client) WatchMembers(ctx context.Context, take func(*Status, error) error) error {
	return c.keepFollowing(ctx, "watch/members", take)
}

// keepFollowing is Watch of what the daemon has at path.
func (c *Client) keepFollowing(ctx context.Context, path string, take func(*Status, error) error) error {
	var enough error
	why := ""
	for {
		lost := c.follow(ctx, path, func(s *Status) bool {
			why, enough = "", take(s, nil)
			return enough == nil
		})
		if enough == nil && ctx.Err() == nil && lost.Error() != why {
			why, enough = lost.Error(), take(nil, lost)
		}
		if enough != nil {
			return enough
		}
		if err := sleep.For(ctx, retryEvery); err != nil {
			return err
		}
	}
}

// follow calls take with each new status that the daemon sends from path, until take has enough,
// and returns why there are no more.
func (c *Client) follow(ctx context.Context, path string, take func(*Status) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.maxSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	resp, err := c.get(ctx, path, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	var last *Status
	for {
		s := new(Status)
		switch err := lines.Decode(s); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("watch %s: the daemon has ended", c.path)
		case err != nil:
			return fmt.Errorf("watch %s: %w", c.path, err)
		}
		silence.Stop()
		if (last == nil || !reflect.DeepEqual(s, last)) && !take(s) {
			return nil
		}
		last = s
		silence.Reset(c.maxSilence)
	}
}

// errSilent is why a connection to a daemon that hangs is given up.
var errSilent = fmt.Errorf("the daemon has not answered for %.0f s", maxSilence.Seconds())
