package netguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/klog"
)

// method is a way to keep a lease, by how urgent it has become.
type method int

const (
	unicast   method = iota // RENEWING: ask our own server
	broadcast               // REBINDING: ask any server
	afresh                  // expired or refused: start over, keeping what we have
)

func (m method) String() string {
	return [...]string{"its own server", "any server", "any server, afresh"}[m]
}

// The least pause between two attempts at one lease, and the pause once it has
// expired. A lease of seconds has shorter ones, in proportion.
const (
	minRetry     = 10 * time.Second
	retryExpired = time.Minute
	leastRetry   = time.Second
)

// retry returns the least pause before another attempt at the lease, retryEnded
// the one once it has expired or was refused.
func retry(l bootnet.Lease) time.Duration { return max(min(minRetry, l.Expires/8), leastRetry) }
func retryEnded(l bootnet.Lease) time.Duration {
	return max(min(retryExpired, l.Expires/2), 2*leastRetry)
}

// methodAt returns how a lease of the given age is to be renewed.
func methodAt(l bootnet.Lease, age time.Duration) method {
	switch {
	case age >= l.Expires:
		return afresh
	case age >= l.Rebind:
		return broadcast
	default:
		return unicast
	}
}

// nextAttempt returns the lease's age at which to try next, when the last try
// was made at age last (0: none yet). It is RFC 2131 section 4.4.5: at T1,
// then at half of what remains until the next bound.
func nextAttempt(l bootnet.Lease, last time.Duration) time.Duration {
	bound := l.Expires
	switch {
	case last < l.Renew:
		return l.Renew
	case last < l.Rebind:
		bound = l.Rebind
	case last >= l.Expires:
		return last + retryEnded(l)
	}
	return min(last+max((bound-last)/2, retry(l)), bound)
}

// longestNap bounds one wait, because the timers of Go stop while the
// machine sleeps and a lease does not.
const longestNap = time.Minute

// renewForever keeps the lease until ctx ends.
func (g *Guard) renewForever(ctx context.Context) {
	var kept bootnet.Lease
	var last time.Duration
	var refused bool
	for {
		lease := g.leaseNow()
		if lease.Address != kept.Address || lease.Obtained != kept.Obtained {
			kept, last, refused = lease, 0, false
		}
		next := nextAttempt(lease, last)
		if refused {
			next = last + retryEnded(lease)
		}
		switch g.awaitAge(ctx, lease, next) {
		case guardEnds:
			return
		case newLease:
			continue
		case conflict:
			g.resolveConflict(ctx, lease)
			continue
		case attemptDue:
		}
		last = klog.Uptime() - lease.Obtained
		how := methodAt(lease, last)
		if refused {
			how = afresh
		}
		if err := g.attempt(ctx, how); err != nil && ctx.Err() == nil {
			refused = refused || errors.Is(err, dhcpclient.ErrRefused)
			g.log.Warn("lease not renewed, the address is kept", "address", lease.Address,
				"asked", how.String(), "expires_in", (lease.Expires - last).Round(time.Second), "error", err)
		}
	}
}

// wakeReason is why the wait for a lease's age is over.
type wakeReason int

const (
	attemptDue wakeReason = iota
	conflict              // another machine uses the address, and boot hosts can be asked about that
	newLease              // there is another lease
	guardEnds             // the guard is to end
)

// awaitAge waits until a lease has come to an age, or for something else to do.
// One that never expires is waited with until there is another.
func (g *Guard) awaitAge(ctx context.Context, lease bootnet.Lease, age time.Duration) wakeReason {
	for {
		left := longestNap
		if lease.Expires > 0 {
			left = min(age-(klog.Uptime()-lease.Obtained), longestNap)
		}
		if left <= 0 {
			return attemptDue
		}
		nap := time.NewTimer(left)
		select {
		case <-nap.C:
			continue
		case <-g.conflicts:
			if lease.Viver { // others have no second host, and answer as ever
				return conflict
			}
		case <-g.replaced:
			return newLease
		case <-ctx.Done():
			return guardEnds
		}
	}
}

// resolveConflict asks the boot hosts for the address that another machine uses too. In
// the halves of a divided network two of them may have given it to two machines. Both
// ask when they find the conflict; now the same host answers both first, and refuses it
// to one of them, which then moves.
func (g *Guard) resolveConflict(ctx context.Context, lease bootnet.Lease) {
	err := g.renewBy(ctx, broadcast)
	if err != nil && ctx.Err() == nil {
		g.defence.warnUndecided.Do(func() {
			g.log.Warn("no boot host decides the address conflict, the address is kept", "address", lease.Address, "error", err)
		})
	}
}

// renewBy renews the lease now. A refusal leads to a new lease; until there is one the
// address is kept.
func (g *Guard) renewBy(ctx context.Context, how method) error {
	err := g.attempt(ctx, how)
	if errors.Is(err, dhcpclient.ErrRefused) {
		err = g.attempt(ctx, afresh)
	}
	return err
}

// attempt tries one method once and takes the new lease over.
func (g *Guard) attempt(ctx context.Context, how method) error {
	link, old := g.dhcpLink()
	if old.Source != bootnet.SourceDHCP {
		return nil
	}
	var renewed bootnet.Lease
	var err error
	if how == afresh {
		renewed, err = dhcpclient.Reacquire(ctx, link, old.Address.Addr(), g.log)
	} else {
		renewed, err = dhcpclient.Renew(ctx, link, old, how == broadcast, g.log)
	}
	if err != nil {
		return fmt.Errorf("renew %s on %s: %w", old.Address, link.Name, err)
	}
	return g.adopt(ctx, old, renewed)
}

// install puts the address of a lease on the link that carries addresses, and
// makes it the guard's.
func (g *Guard) install(renewed bootnet.Lease) (bootnet.Card, error) {
	g.changing.Lock()
	defer g.changing.Unlock()
	if err := bootnet.AddAddress(g.holder.Index, renewed.Address); err != nil {
		return bootnet.Card{}, err
	}
	g.set(func() { g.lease = renewed })
	g.replaced.Send()
	return g.holder, nil
}

// adopt puts a new lease in place of old: the new address is on the link before the old
// one goes, and changed is called in between.
func (g *Guard) adopt(ctx context.Context, old, renewed bootnet.Lease) error {
	if renewed.Address == old.Address {
		renewed.MTU = old.MTU // what the network was found to carry
	}
	link, err := g.install(renewed)
	if err != nil {
		return err
	}
	if renewed.Address == old.Address {
		g.log.Debug("lease renewed", "address", renewed.Address, "expires_in", renewed.Expires)
		g.changed(old, renewed)
		return nil
	}
	g.log.Warn("the boot link has a new address", "old", old.Address, "new", renewed.Address)
	bootnet.ApplyMTU(ctx, link, &renewed, g.log)
	g.changing.Lock()
	g.set(func() { g.lease.MTU = renewed.MTU })
	g.changing.Unlock()
	if err := bootnet.SetRoutes(link.Index, renewed); err != nil {
		g.log.Warn("routes not changed", "error", err)
	}
	removeRoutes(link.Index, old, renewed)
	g.changed(old, renewed)
	promoteSecondaries(link.Name, g.log)
	if err := removeAddress(link.Index, old.Address); err != nil {
		return err
	}
	r, err := g.restore()
	g.follow(r)
	return err
}

// promoteSecondaries keeps the kernel from removing a new address together
// with an old one of the same network, which was there first.
func promoteSecondaries(name string, log *slog.Logger) {
	path := filepath.Join("/proc/sys/net/ipv4/conf", name, "promote_secondaries")
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		log.Debug("secondary addresses not kept by the kernel; the guard will put ours back", "error", err)
	}
}
