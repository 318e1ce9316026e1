package imagebuild

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

// Tasks run at once, and one of them is shown at a time: the first that has not ended.
func TestSideBySide(t *testing.T) {
	told, seen := make(chan bool), make(chan bool)
	var once sync.Once
	var shown []string
	err := sideBySide(t.Context(),
		func(name string, done, total int64) {
			if shown = append(shown, name); name == "second" {
				once.Do(func() { close(seen) })
			}
		},
		func(_ context.Context, show showFunc) error {
			show("first", 0, 2)
			<-told
			<-told
			show("first", 2, 2)
			return nil
		},
		func(_ context.Context, show showFunc) error {
			show("too early", 1, 2)
			told <- true
			for { // until the end of the first is known
				select {
				case <-seen:
					return nil
				default:
					show("second", 2, 2)
				}
			}
		},
		func(_ context.Context, show showFunc) error {
			show("third", 1, 1)
			told <- true
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(slices.Compact(shown), []string{"first", "second"}) {
		t.Errorf("shown: %q", shown)
	}
}

// One that fails ends the others, and its error is the one that is told.
func TestSideBySideFails(t *testing.T) {
	broken := errors.New("a module cannot be read")
	err := sideBySide(t.Context(), func(string, int64, int64) {},
		func(ctx context.Context, show showFunc) error {
			<-ctx.Done()
			show("still told", 1, 1)
			return ctx.Err()
		},
		func(context.Context, showFunc) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
