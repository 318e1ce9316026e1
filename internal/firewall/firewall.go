// Package firewall keeps VIVER's ports open whatever firewall the booted
// distribution loads: with a root disk that comes over the network, a rule that
// drops unsolicited packets cuts other machines off from this one, and a rule for
// outgoing packets can cut this one off from its root disk.
//
// A packet has to pass every chain at a hook, and what one accepts the next may
// still drop. So rules of ours go to the top of each chain that may drop, in the
// nftables of the kernel and in the older ip_tables. They are for the boot network
// alone, and they come back when somebody loads another ruleset. The invariant:
// nothing that is not ours is changed or taken away, and no part of the kernel is
// loaded that the distribution has not loaded itself.
package firewall

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"viver.lan/internal/contain"
	"viver.lan/internal/notify"
	"viver.lan/internal/sleep"
)

// Config is what a Keeper needs.
type Config struct {
	// Network is the boot network, IPv4. Others may use the ports from there only.
	Network netip.Prefix
	// Ports are those that this machine listens on or finds others at.
	Ports
	// More gives further ones, which may change at any time; nil for none.
	More func() Ports
	Log  *slog.Logger
}

// Ports are numbers of ports by protocol.
type Ports struct{ TCP, UDP []uint16 }

func (p Ports) equal(other Ports) bool {
	return slices.Equal(p.TCP, other.TCP) && slices.Equal(p.UDP, other.UDP)
}

// Report is the state of a Keeper.
type Report struct {
	// Open lists the chains that have our rules, such as "ip filter INPUT".
	Open []string
	// Problems say where our rules are needed and could not be added.
	Problems []string
}

// Keeper keeps ports open.
type Keeper struct {
	log  *slog.Logger
	cfg  Config
	root string // of /sys, /proc and /lib, for tests
	nft  func(in, out []pass) ruleset
	// A tool that removes our rules again and again, or a chain that cannot be changed,
	// must not fill the log.
	say, complain rate.Sometimes

	mu     sync.Mutex // guards report
	report Report
}

// New returns a keeper that has done nothing yet.
func New(cfg Config) *Keeper {
	k := &Keeper{log: cfg.Log, cfg: cfg, root: "/", nft: newNFT,
		say: rate.Sometimes{First: 5, Interval: time.Minute}, complain: rate.Sometimes{First: 5, Interval: time.Minute}}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	return k
}

// Report returns what is known now.
func (k *Keeper) Report() Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Report{Open: slices.Clone(k.report.Open), Problems: slices.Clone(k.report.Problems)}
}

// When the keeper checks: some time after the kernel reported a change, because
// rulesets are loaded in many steps, and otherwise at a tick, for what the kernel
// does not report: a module that was loaded, rules of ip_tables.
const (
	settleTime = 250 * time.Millisecond
	checkEvery = time.Second
)

// Run keeps the ports open until ctx ends; it returns nil then. It gives no other
// error: what fails is logged, reported and tried again.
func (k *Keeper) Run(ctx context.Context) error {
	changed := notify.NewSignal()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { k.watch(ctx, changed); return nil })
	group.Go(func() error { k.checkLoop(ctx, changed); return nil })
	return group.Wait()
}

// watch signals what the kernel reports about nftables. It begins when the
// distribution has loaded nftables.
func (k *Keeper) watch(ctx context.Context, changed notify.Signal) {
	const module, seldom = "nf_tables", 30 // the lists of what is built in are long
	for i := 0; ctx.Err() == nil; i++ {
		if !k.loaded(module) && (i%seldom != 0 || !k.builtIn(module)) {
			_ = sleep.For(ctx, checkEvery)
			continue
		}
		if err := changed.FollowKernel(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES); err != nil && ctx.Err() == nil {
			k.log.Debug("lost the kernel's reports about nftables, subscribing again", "error", err)
			i = -1
			_ = sleep.For(ctx, checkEvery)
		}
	}
}

// checkLoop checks after each signal and at each tick. When a tool removes our rules again
// and again, they are restored ten times at once, then once per second.
func (k *Keeper) checkLoop(ctx context.Context, kernel notify.Signal) {
	limit := rate.NewLimiter(rate.Every(time.Second), 10)
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	more := k.more()
	tables, old := k.rulesets(more)
	var inTables, inOld Report
	// To ask the kernel before nftables are loaded would load them, from the root disk. Go
	// makes socket(2) as a raw system call: the next collection of garbage waits for it,
	// and with that this whole process, which may serve the disk.
	loaded := false
	for {
		var changed []string
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := k.more()
			others := !now.equal(more)
			if others {
				more = now
				tables, old = k.rulesets(more)
			}
			inOld, changed = k.open(old)
			if loaded && (others || len(inTables.Problems) > 0) { // the kernel reports changes, and nothing else
				var chains []string
				inTables, chains = k.open(tables)
				changed = append(changed, chains...)
			}
		case <-kernel:
			if sleep.For(ctx, settleTime) != nil {
				return
			}
			loaded = true
			inTables, changed = k.open(tables)
		}
		k.publish([]Report{inTables, inOld}, changed)
		if len(changed) > 0 && limit.Wait(ctx) != nil {
			return
		}
	}
}

// more returns the further ports that are wanted now.
func (k *Keeper) more() Ports {
	if k.cfg.More == nil {
		return Ports{}
	}
	return k.cfg.More()
}

// rulesets returns both packet filters, which do not know yet whether the rules that are
// there are for these ports.
func (k *Keeper) rulesets(more Ports) (tables, old ruleset) {
	all := Ports{TCP: slices.Concat(k.cfg.TCP, more.TCP), UDP: slices.Concat(k.cfg.UDP, more.UDP)}
	in, out := incoming(k.cfg.Network, all), outgoing(k.cfg.Network, all)
	return k.nft(in, out), &legacy{in: in, out: out, filled: make(map[string]bool), root: k.root}
}

// ruleset is one of the kernel's packet filters.
type ruleset interface {
	// open puts rules of ours where they are missing; changed names those chains.
	// A problem of one chain does not keep it from others.
	open() (r Report, changed []string, err error)
}

// open updates one ruleset. The distribution's rules may be anything, and the root
// disk depends on this process: a fault in reading them must not end it.
func (k *Keeper) open(s ruleset) (r Report, changed []string) {
	err := contain.Call(k.log, "the firewall's rules", func() (err error) {
		r, changed, err = s.open()
		return err
	})
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	return r, changed
}

// publish stores the report, and logs what is new in it.
func (k *Keeper) publish(seen []Report, changed []string) {
	var all Report
	for _, r := range seen {
		all.Open = append(all.Open, r.Open...)
		all.Problems = append(all.Problems, r.Problems...)
	}
	k.mu.Lock()
	old := k.report
	k.report = all
	k.mu.Unlock()
	if len(changed) > 0 {
		k.say.Do(func() {
			k.log.Warn("the distribution's firewall: VIVER's ports are kept open", "chains", strings.Join(changed, ", "))
		})
	}
	if len(all.Problems) > 0 && !slices.Equal(old.Problems, all.Problems) {
		k.complain.Do(func() {
			k.log.Error("the distribution's firewall may keep other machines out", "reason", strings.Join(all.Problems, "; "))
		})
	}
}
