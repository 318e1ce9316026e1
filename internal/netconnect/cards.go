package netconnect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/sleep"
)

// waitCards waits for the cards that filter allows. Cards on USB and slow drivers arrive
// late, so a named card is waited for until ctx ends; when any card will do, the first is
// enough, after a moment for others.
func waitCards(ctx context.Context, filter cardFilter) ([]bootnet.Card, error) {
	const moment = 500 * time.Millisecond
	var first time.Time
	for {
		all, err := bootnet.Cards()
		if err != nil {
			return nil, err
		}
		links := filter.apply(all)
		if len(links) > 0 {
			if filter.named() {
				return links, nil
			}
			if first.IsZero() {
				first = time.Now()
			}
			if time.Since(first) >= moment {
				return links, nil
			}
		}
		if err := sleep.For(ctx, bootnet.PollEvery); err != nil {
			if len(links) > 0 {
				return links, nil
			}
			return nil, fmt.Errorf("no network card %swithin the deadline; found: %s", filter, describe(all))
		}
	}
}

// cardFilter says which cards may be the boot link.
type cardFilter struct {
	MAC    ether.MAC // from BOOTIF; zero: any
	Device string    // from ip=, a link's name; empty: any
	Source string    // the setting that names it, where that is another
}

func (c cardFilter) named() bool { return c.MAC != (ether.MAC{}) || c.Device != "" }

// String describes the filter, with a blank at its end when there is one.
func (c cardFilter) String() string {
	var b strings.Builder
	if c.MAC != (ether.MAC{}) {
		fmt.Fprintf(&b, "with the address %s (%s) ", c.MAC, cmp.Or(c.Source, "BOOTIF"))
	}
	if c.Device != "" {
		fmt.Fprintf(&b, "named %s (%s) ", c.Device, cmp.Or(c.Source, "ip="))
	}
	return b.String()
}

func (c cardFilter) apply(cards []bootnet.Card) []bootnet.Card {
	return slices.DeleteFunc(slices.Clone(cards), func(card bootnet.Card) bool {
		return c.MAC != (ether.MAC{}) && card.MAC != c.MAC || c.Device != "" && card.Name != c.Device
	})
}

func describe(links []bootnet.Card) string {
	if len(links) == 0 {
		return "none at all (is its driver among the modules?)"
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.String()
	}
	return strings.Join(names, ", ")
}
