// Package xtables reads and writes the tables of the kernel's ip_tables, the
// packet filter behind iptables-legacy: a blob of rules that refer to each other by
// their places in it.
//
// It is the codec alone, for IPv4 on 64-bit machines; package firewall asks the
// kernel. The invariant: a table that was parsed and is written again unchanged is
// the same to the byte, and what does not add up is an error.
package xtables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Hooks of IPv4, see linux/netfilter.h.
const (
	Prerouting = iota
	Input
	Forward
	Output
	Postrouting
	hooks
)

// Verdicts as a rule carries them: less one, negated.
const (
	Accept int32 = -2
	Drop   int32 = -1
	Return int32 = -5
)

// Sizes of the kernel's structures, see linux/netfilter_ipv4/ip_tables.h and
// linux/netfilter/x_tables.h.
const (
	NameSize     = 32
	InfoSize     = NameSize + 4 + 4*hooks + 4*hooks + 4 + 4 // struct ipt_getinfo
	EntriesSize  = 40                                       // struct ipt_get_entries without entries
	ReplaceSize  = 96                                       // struct ipt_replace without entries
	CountersSize = 40                                       // struct xt_counters_info without counters
	CounterSize  = 16                                       // struct xt_counters

	ipSize       = 84  // struct ipt_ip
	entrySize    = 112 // struct ipt_entry
	countersAt   = 96  // of an entry
	targetHeader = 32  // struct xt_entry_target, struct xt_entry_match
	standardSize = 40  // struct xt_standard_target
	errorSize    = 64  // struct xt_error_target
)

var errTable = errors.New("a table of ip_tables that does not add up")

// Table is a table such as "filter".
type Table struct {
	Name  string
	hooks uint32 // those that it has chains for, as bits
	// chains are those of the hooks in the kernel's order, then the users'.
	chains []*Chain
	end    *Rule // the entry behind all chains
	old    int   // how many entries the kernel has
}

// Chain is a list of rules.
type Chain struct {
	Name string // "" for a hook's own
	hook int    // -1 for a user's
	// Policy is what happens at the end: Accept, Drop or Return.
	Policy int32
	Rules  []*Rule

	head   *Rule // of a user's chain: the entry that holds its name
	policy *Rule
}

// Rule is an entry of a table: a rule, mostly.
type Rule struct {
	entry []byte
	jump  *Chain // nil unless the rule leads to a user's chain
	falls bool   // the rule has no verdict: the next one is asked
	old   int    // its place in the kernel's table, -1 for a new one
}

// Jump returns the chain that the rule leads to whatever the packet, nil for any
// other rule.
func (r *Rule) Jump() *Chain {
	if r.jump == nil || !bytes.Equal(r.entry[:ipSize], make([]byte, ipSize)) || binary.NativeEndian.Uint16(r.entry[88:]) != entrySize {
		return nil
	}
	return r.jump
}

// Info is what the kernel says of a table before it gives it.
type Info struct {
	Size    int // bytes of all entries
	Entries int
	hooks   uint32
	entry   [hooks]uint32
	policy  [hooks]uint32
}

// ParseInfo reads a struct ipt_getinfo.
func ParseInfo(b []byte) (info Info, err error) {
	if len(b) < InfoSize {
		return info, fmt.Errorf("%w: %d bytes of info", errTable, len(b))
	}
	at := b[NameSize:]
	u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(at[4*i:]) }
	info.hooks = u32(0)
	for h := range hooks {
		info.entry[h], info.policy[h] = u32(1+h), u32(1+hooks+h)
	}
	info.Entries, info.Size = int(u32(1+2*hooks)), int(u32(2+2*hooks))
	return info, nil
}

// Parse reads the entries of a table.
func Parse(name string, info Info, b []byte) (*Table, error) {
	p := parser{table: &Table{Name: name, hooks: info.hooks}, info: info, places: make(map[uint32]*Rule), chainAt: make(map[uint32]*Chain)}
	if err := p.split(b); err != nil {
		return nil, err
	}
	if err := p.link(); err != nil {
		return nil, err
	}
	return p.table, nil
}

// parser takes a table apart.
type parser struct {
	table   *Table
	info    Info
	offsets []uint32         // of all rules, ascending
	places  map[uint32]*Rule // by their offsets
	chainAt map[uint32]*Chain
}

// split finds the entries and gathers them in chains.
func (p *parser) split(b []byte) error {
	var chain *Chain
	for at := uint32(0); int(at) < len(b); {
		entry, err := nextEntry(b[at:])
		if err != nil {
			return fmt.Errorf("%w: entry at %d", errTable, at)
		}
		r := &Rule{entry: slices.Clone(entry), old: p.table.old}
		p.table.old++
		here := at
		at += uint32(len(entry))
		if name, ok := chainName(entry); ok {
			if int(at) == len(b) {
				p.table.end = r
				return nil
			}
			chain = &Chain{Name: name, hook: -1, head: r}
			p.table.chains = append(p.table.chains, chain)
			p.chainAt[at] = chain
			continue
		}
		if h := p.hookAt(here); h >= 0 {
			chain = &Chain{hook: h}
			p.table.chains = append(p.table.chains, chain)
		}
		if chain == nil {
			return fmt.Errorf("%w: a rule outside chains at %d", errTable, here)
		}
		chain.Rules = append(chain.Rules, r)
		p.offsets = append(p.offsets, here)
		p.places[here] = r
	}
	return fmt.Errorf("%w: no end", errTable)
}

// chainName returns the name that an entry holds which begins a user's chain, or
// ends the table.
func chainName(entry []byte) (string, bool) {
	target := targetOf(entry)
	if text(target[2:31]) != "ERROR" || len(target) < errorSize {
		return "", false
	}
	return text(target[targetHeader:errorSize]), true
}

func targetOf(entry []byte) []byte { return entry[binary.NativeEndian.Uint16(entry[88:]):] }

func (p *parser) hookAt(at uint32) int {
	for h := range hooks {
		if p.info.hooks&(1<<h) != 0 && p.info.entry[h] == at {
			return h
		}
	}
	return -1
}

// nextEntry returns the first entry of b.
func nextEntry(b []byte) ([]byte, error) {
	if len(b) < entrySize {
		return nil, errTable
	}
	target, next := int(binary.NativeEndian.Uint16(b[88:])), int(binary.NativeEndian.Uint16(b[90:]))
	if target < entrySize || target+targetHeader > next || next > len(b) || next%8 != 0 {
		return nil, errTable
	}
	return b[:next], nil
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// standard returns the verdict of a rule that has nothing but one.
func standard(entry []byte) (verdict []byte, ok bool) {
	target := targetOf(entry)
	if text(target[2:31]) != "" || len(target) < standardSize {
		return nil, false
	}
	return target[targetHeader : targetHeader+4], true
}

// link replaces places by what is there, and takes policies from the ends.
func (p *parser) link() error {
	for i, at := range p.offsets {
		r := p.places[at]
		v, ok := standard(r.entry)
		if !ok {
			continue
		}
		verdict := int32(binary.NativeEndian.Uint32(v))
		switch {
		case verdict < 0:
		case p.chainAt[uint32(verdict)] != nil:
			r.jump = p.chainAt[uint32(verdict)]
		case i+1 < len(p.offsets) && uint32(verdict) == at+uint32(len(r.entry)):
			r.falls = true
		default:
			return fmt.Errorf("%w: a jump to %d", errTable, verdict)
		}
	}
	for _, c := range p.table.chains {
		if len(c.Rules) == 0 {
			return fmt.Errorf("%w: a chain without an end", errTable)
		}
		c.policy = c.Rules[len(c.Rules)-1]
		c.Rules = c.Rules[:len(c.Rules)-1]
		v, ok := standard(c.policy.entry)
		if !ok || c.policy.jump != nil || c.policy.falls {
			return fmt.Errorf("%w: a chain without a policy", errTable)
		}
		c.Policy = int32(binary.NativeEndian.Uint32(v))
	}
	return nil
}
