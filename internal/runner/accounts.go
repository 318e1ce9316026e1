package runner

import (
	"context"
	"strings"
	"time"

	"viver.lan/internal/runes"
)

// accountsEvery is the time after which the users' homes are seen to again: what is
// mounted at /home, and so whose homes this machine makes, changes without notice.
const accountsEvery = time.Minute

// people are the users and groups of the runes in use.
type people struct {
	bundles []runes.Bundle
	facts   runes.Facts
	// whole says that these are all that the network has: a bundle that cannot be read,
	// or a live layer that is not here yet, must not lock its users.
	whole bool
}

// keepAccounts brings the users and groups into the system when the runes change.
func (r *runner) keepAccounts(ctx context.Context) error {
	var now people
	again := time.NewTimer(accountsEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now = <-r.peopleChanged:
		case <-again.C:
		}
		again.Reset(accountsEvery)
		if now.bundles == nil {
			continue
		}
		err := r.applyAccounts(ctx, now)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var problems []string
		if err != nil {
			problems = strings.Split(err.Error(), "\n")
		}
		if r.board.accounts(problems) && err != nil {
			r.log.Warn("users and groups of the runes", "error", err)
		}
	}
}

func (r *runner) applyAccounts(ctx context.Context, p people) error {
	system, err := r.open()
	if err != nil {
		return err
	}
	defer system.Close() // opened for reading: nothing can be lost
	return system.ApplyAccounts(ctx, p.bundles, p.facts, p.whole)
}

// latest puts a value into a channel with room for one; one that was not taken yet is
// forgotten. There is one writer.
func latest[T any](c chan T, value T) {
	select {
	case <-c:
	default:
	}
	c <- value
}
