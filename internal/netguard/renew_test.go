package netguard

import (
	"testing"
	"time"

	"viver.lan/internal/bootnet"
)

// A lease of seconds is renewed within them, and a server cannot make us ask
// more than once a second.
func TestNextAttemptAtShortLeases(t *testing.T) {
	for _, expires := range []time.Duration{4 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute} {
		l := bootnet.Lease{Renew: expires / 2, Rebind: expires / 8 * 7, Expires: expires}
		last, tries := time.Duration(0), 0
		for last < expires {
			at := nextAttempt(l, last)
			if at-last < leastRetry && at != expires && at != l.Rebind || at > expires {
				t.Errorf("a lease of %s: tried at %s, then at %s", expires, last, at)
			}
			last, tries = at, tries+1
		}
		if tries < 3 {
			t.Errorf("a lease of %s: %d tries before its end", expires, tries)
		}
		if again := nextAttempt(l, last) - last; again > retryExpired || again < 2*leastRetry {
			t.Errorf("a lease of %s, expired: again after %s", expires, again)
		}
	}
}

func TestNextAttempt(t *testing.T) {
	l := bootnet.Lease{Renew: 1800 * time.Second, Rebind: 3150 * time.Second, Expires: 3600 * time.Second}
	for _, c := range []struct{ last, want, method int }{
		{0, 1800, int(unicast)},          // nothing tried: T1
		{1800, 2475, int(unicast)},       // half way to T2
		{3140, 3150, int(broadcast)},     // not past T2
		{3150, 3375, int(broadcast)},     // half way to the end
		{3595, 3600, int(afresh)},        // not past the end
		{3600, 3660, int(afresh)},        // expired: once a minute
		{86400, 86400 + 60, int(afresh)}, // and for ever
		{3100, 3125, int(unicast)},       // half of the rest
		{3135, 3145, int(unicast)},       // but never less than ten seconds
		{1799, 1800, int(unicast)},       // early renewal by hand
		{3590, 3600, int(afresh)},
	} {
		at := nextAttempt(l, time.Duration(c.last)*time.Second)
		if want := time.Duration(c.want) * time.Second; at != want || methodAt(l, at) != method(c.method) {
			t.Errorf("after a try at %d s: next at %v by %v, want %v by %v", c.last, at, methodAt(l, at), want, method(c.method))
		}
	}
}
