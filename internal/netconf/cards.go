package netconf

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/sleep"
)

// pollEvery is how often we look whether a card has arrived.
const pollEvery = 100 * time.Millisecond

// WaitLinks waits for the cards that choice allows. Cards on USB and slow
// drivers arrive late, so a wanted card is waited for until ctx ends; when any
// card will do, the first is enough, after a moment for its sisters.
func WaitLinks(ctx context.Context, choice Choice) ([]bootnet.Link, error) {
	const settle = 500 * time.Millisecond
	var first time.Time
	for {
		all, err := bootnet.Links()
		if err != nil {
			return nil, err
		}
		links := choice.filter(all)
		if len(links) > 0 {
			if choice.particular() {
				return links, nil
			}
			if first.IsZero() {
				first = time.Now()
			}
			if time.Since(first) >= settle {
				return links, nil
			}
		}
		if err := sleep.For(ctx, pollEvery); err != nil {
			if len(links) > 0 {
				return links, nil
			}
			return nil, fmt.Errorf("no network card %swithin the deadline; found: %s", choice, describe(all))
		}
	}
}

// Choice says which cards may be the boot link.
type Choice struct {
	MAC    ether.MAC // from BOOTIF; zero: any
	Device string    // from ip=, a link's name; empty: any
	By     string    // who says so, where that is another setting
}

func (c Choice) particular() bool { return c.MAC != (ether.MAC{}) || c.Device != "" }

// String describes the choice, with a blank at its end when there is one.
func (c Choice) String() string {
	var b strings.Builder
	if c.MAC != (ether.MAC{}) {
		fmt.Fprintf(&b, "with the address %s (%s) ", c.MAC, cmp.Or(c.By, "BOOTIF"))
	}
	if c.Device != "" {
		fmt.Fprintf(&b, "named %s (%s) ", c.Device, cmp.Or(c.By, "ip="))
	}
	return b.String()
}

func (c Choice) filter(links []bootnet.Link) []bootnet.Link {
	var fit []bootnet.Link
	for _, l := range links {
		if (c.MAC == (ether.MAC{}) || l.MAC == c.MAC) && (c.Device == "" || l.Name == c.Device) {
			fit = append(fit, l)
		}
	}
	return fit
}

func describe(links []bootnet.Link) string {
	if len(links) == 0 {
		return "none at all (is its driver among the modules?)"
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.String()
	}
	return strings.Join(names, ", ")
}
