package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

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

// minRetry is the least pause between two attempts at one lease, and
// retryExpired the pause once it has expired.
const (
	minRetry     = 10 * time.Second
	retryExpired = time.Minute
)

// methodAt returns how a lease of the given age is to be renewed.
func (l Lease) methodAt(age time.Duration) method {
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
func (l Lease) nextAttempt(last time.Duration) time.Duration {
	bound := l.Expires
	switch {
	case last < l.Renew:
		return l.Renew
	case last < l.Rebind:
		bound = l.Rebind
	case last >= l.Expires:
		return last + retryExpired
	}
	return min(last+max((bound-last)/2, minRetry), bound)
}

// longestNap bounds one wait, because the timers of Go stand still while the
// machine sleeps and a lease does not.
const longestNap = time.Minute

// renewForever keeps the lease until ctx ends.
func (g *Guard) renewForever(ctx context.Context) {
	var last time.Duration
	var refused bool
	for {
		lease := g.Lease()
		if lease.Expires == 0 {
			return // static, chosen by ourselves, or given for ever
		}
		due := lease.nextAttempt(last)
		if refused {
			due = last + retryExpired
		}
		contested, err := g.awaitAge(ctx, lease, due)
		if err != nil {
			return
		}
		if contested {
			if g.settle(ctx, lease) {
				last, refused = 0, false
			}
			continue
		}
		last = klog.Uptime() - lease.Obtained
		how := lease.methodAt(last)
		if refused {
			how = afresh
		}
		err = g.attempt(ctx, how)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last, refused = 0, false
		default:
			refused = refused || errors.Is(err, errRefused)
			g.log.Warn("lease not renewed, the address is kept", "address", lease.Address,
				"asked", how.String(), "expires_in", (lease.Expires - last).Round(time.Second), "error", err)
		}
	}
}

// awaitAge waits until a lease has come to an age, or until another machine is
// found to use its address and boot hosts can be asked about that.
func (g *Guard) awaitAge(ctx context.Context, lease Lease, due time.Duration) (contested bool, err error) {
	for {
		age := klog.Uptime() - lease.Obtained
		if age >= due {
			return false, nil
		}
		nap := time.NewTimer(min(due-age, longestNap))
		select {
		case <-nap.C:
		case <-g.contested:
			contested = lease.Viver // others have no second host, and answer as ever
		case <-ctx.Done():
			err = ctx.Err()
		}
		nap.Stop()
		if contested || err != nil {
			return contested, err
		}
	}
}

// settle asks whose the address is that another machine uses too, and reports
// whether there is a lease for this machine now. In the halves of a divided
// network two boot hosts may have given it to two machines. Both ask when they
// notice; now the same host answers both first, and refuses it to one of them,
// which then moves.
func (g *Guard) settle(ctx context.Context, lease Lease) bool {
	err := g.renewBy(ctx, broadcast)
	if err != nil && ctx.Err() == nil {
		g.defence.doubt.Do(func() {
			g.log.Warn("no boot host says whose the address is, it is kept", "address", lease.Address, "error", err)
		})
	}
	return err == nil
}

// Renew renews the lease now, at its own server. A refusal leads to a new
// lease; until there is one the address is kept.
func (g *Guard) Renew(ctx context.Context) error { return g.renewBy(ctx, unicast) }

func (g *Guard) renewBy(ctx context.Context, how method) error {
	err := g.attempt(ctx, how)
	if errors.Is(err, errRefused) {
		err = g.attempt(ctx, afresh)
	}
	return err
}

// attempt tries one method once and takes the new lease over.
func (g *Guard) attempt(ctx context.Context, how method) error {
	link, old := g.current()
	if old.Source != SourceDHCP {
		return nil
	}
	c, err := newClient(link, g.log)
	if err != nil {
		return err
	}
	defer c.close()
	var renewed Lease
	if how == afresh {
		renewed, err = c.once(ctx, old.Address.Addr())
	} else {
		renewed, err = c.renew(ctx, old, how == broadcast)
	}
	if err != nil {
		return fmt.Errorf("renew %s on %s: %w", old.Address, link.Name, err)
	}
	return g.adopt(old, renewed)
}

// adopt puts a new lease in place of old: the new address is on the link
// before the old one goes, and whoever listens is told in between.
func (g *Guard) adopt(old, renewed Lease) error {
	g.mu.Lock()
	link := g.holder
	err := addAddress(link.Index, renewed.Address)
	if err == nil {
		g.lease = renewed
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	if renewed.Address == old.Address {
		g.log.Debug("lease renewed", "address", renewed.Address, "expires_in", renewed.Expires)
		g.changed(old, renewed)
		return nil
	}
	g.log.Warn("the boot link has a new address", "old", old.Address, "new", renewed.Address)
	if err := setDefaultRoute(link.Index, renewed); err != nil {
		g.log.Warn("default route not changed", "error", err)
	}
	g.changed(old, renewed)
	promoteSecondaries(link.Name, g.log)
	if err := removeAddress(link.Index, old.Address); err != nil {
		return err
	}
	r, err := g.restore()
	if r.moved {
		g.follow(r.holder)
	}
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
