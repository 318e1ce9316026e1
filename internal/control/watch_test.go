package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var errEnough = errors.New("enough")

// A follower gets the status at once, again when it has changed, not too often, and
// only after a while when it is the same; what nobody tells the daemon it finds out a
// little later.
func TestWatchSendsWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDaemon()
		sent := make(chan string, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- watch(ctx, d, d.Status, func(s *Status) error { sent <- s.Hostname; return nil })
		}()
		for _, step := range []struct {
			what string
			do   func()
			wait time.Duration // before it was sent, or not
			want string        // "" for nothing
		}{
			{"at first", func() {}, 0, "node-1"},
			{"too soon", func() { d.change(func(s *Status) { s.Hostname = "b" }) }, watchEvery - 1, ""},
			{"the newest of two", func() { d.change(func(s *Status) { s.Hostname = "c" }) }, 1, "c"},
			{"no news", d.Notify, aliveEvery - 2, ""},
			{"a sign of life", func() {}, 2, "c"},
			{"said to nobody", func() { d.mu.Lock(); d.status.Hostname = "d"; d.mu.Unlock() }, aliveEvery, "d"},
			{"after a long time", func() { time.Sleep(watchEvery); d.change(func(s *Status) { s.Hostname = "e" }) }, 0, "e"},
		} {
			step.do()
			time.Sleep(step.wait)
			synctest.Wait()
			got := ""
			select {
			case got = <-sent:
			default:
			}
			if got != step.want || len(sent) > 0 {
				t.Errorf("%s: the follower got %q and %d more, want %q", step.what, got, len(sent), step.want)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// Whoever changes the status waits for no follower, and a slow one gets the newest.
func TestASlowFollowerGetsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDaemon()
		const slow = time.Minute
		var got []int
		done := make(chan error)
		go func() {
			done <- watch(t.Context(), d, d.Status, func(s *Status) error {
				got = append(got, s.Pinned)
				time.Sleep(slow)
				if s.Pinned == 1000 {
					return errEnough
				}
				return nil
			})
		}()
		synctest.Wait()
		begin := time.Now()
		for n := range 1000 {
			d.change(func(s *Status) { s.Pinned = n + 1 })
		}
		if time.Since(begin) != 0 {
			t.Error("a change waited for the follower")
		}
		if err := <-done; !errors.Is(err, errEnough) {
			t.Errorf("it ended with %v", err)
		}
		if len(got) != 2 || got[1] != 1000 {
			t.Errorf("the slow follower got %v, want the first and the newest", got)
		}
		asked := d.asked
		time.Sleep(time.Hour)
		if d.asked != asked {
			t.Error("the daemon works out its status although nobody follows")
		}
	})
}

// Who follows the members is told nothing of the volume.
func TestWatchMembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	d := newFakeDaemon()
	defer serveDaemon(t, path, d)()
	d.change(func(s *Status) { s.Pinned = 1000 })
	var got []string
	err := NewClient(path).WatchMembers(t.Context(), func(s *Status, lost error) error {
		if lost != nil || s.Pinned != 0 {
			t.Errorf("it took %+v, %v", s, lost)
		}
		if got = append(got, s.Hostname); len(got) == 2 {
			return errEnough
		}
		d.change(func(s *Status) { s.Pinned, s.Hostname = 1001, "node-2" })
		return nil
	})
	if !errors.Is(err, errEnough) || !slices.Equal(got, []string{"node-1", "node-2"}) {
		t.Errorf("it took %v and ended with %v", got, err)
	}
}

// A client hears that the daemon has gone, once, and goes on with the next one.
func TestWatchOutlivesTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	d := newFakeDaemon()
	var stop context.CancelFunc
	heard := ""
	err := NewClient(path).Watch(t.Context(), func(s *Status, lost error) error {
		switch {
		case s == nil && lost == nil, s != nil && lost != nil:
			t.Fatalf("it took %v, %v", s, lost)
		case stop == nil: // nobody listens yet
			heard += "none "
			stop = serveDaemon(t, path, d)
		case s != nil && s.Hostname == "node-1":
			heard += "first "
			d.change(func(s *Status) { s.Hostname = "node-2" })
		case s != nil && heard == "none first ":
			heard += "second "
			stop()
		case s == nil:
			heard += "gone "
			if heard == "none first second gone " { // and when the socket is not there any more
				stop = serveDaemon(t, path, d)
			}
		default:
			heard += "back"
			return errEnough
		}
		return nil
	})
	defer stop()
	if want := "none first second gone back"; !errors.Is(err, errEnough) || heard != want {
		t.Errorf("it heard %q and ended with %v, want %q", heard, err, want)
	}
}

// A daemon that hangs is gone for whoever follows it.
func TestAFollowerNoticesADaemonThatHangs(t *testing.T) {
	for name, serve := range map[string]func(t *testing.T, path string) (hang func()){
		"accepts nobody": func(t *testing.T, path string) (hang func()) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return func() {}
		},
		"says nothing more": func(t *testing.T, path string) (hang func()) {
			d := newFakeDaemon()
			stop := serveDaemon(t, path, d)
			t.Cleanup(stop)
			return func() { d.mu.Lock(); t.Cleanup(d.mu.Unlock) } // its status waits for that
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewClient(filepath.Join(t.TempDir(), "s"))
			hang := serve(t, c.path)
			c.maxSilence = 50 * time.Millisecond
			var why error
			err := c.Watch(t.Context(), func(_ *Status, lost error) error {
				if why = lost; lost == nil {
					hang()
					return nil
				}
				return errEnough
			})
			if !errors.Is(err, errEnough) || !errors.Is(why, errSilent) {
				t.Errorf("it heard %v and ended with %v", why, err)
			}
		})
	}
}

// clientOf returns a client of a daemon that answers so.
func clientOf(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return NewClient(path)
}

// What is sent again only as a sign of life is no news.
func TestWatchTakesWhatIsNew(t *testing.T) {
	heard := ""
	err := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"a", "a", "a", "b", "b", "a"} {
			_ = json.NewEncoder(w).Encode(Status{Hostname: name})
		}
	}).Watch(t.Context(), func(s *Status, lost error) error {
		if lost != nil {
			return lost
		}
		heard += s.Hostname
		return nil
	})
	if heard != "aba" || err == nil {
		t.Errorf("it heard %q and ended with %v", heard, err)
	}
}

// An older daemon knows no such question, which is not that a file is missing.
func TestWatchOfAnotherVersion(t *testing.T) {
	err := clientOf(t, http.NotFound).Watch(t.Context(), func(_ *Status, lost error) error { return lost })
	if !errors.Is(err, ErrVersion) || errors.Is(err, os.ErrNotExist) {
		t.Errorf("it ended with %v", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer serve(t, path)()
	ctx, cancel := context.WithCancel(t.Context())
	err := NewClient(path).Watch(ctx, func(*Status, error) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
