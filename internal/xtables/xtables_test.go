package xtables

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// empty is the table "filter" as the kernel makes it.
func empty() *Table {
	end := make([]byte, errorSize)
	binary.NativeEndian.PutUint16(end, errorSize)
	copy(end[2:], "ERROR")
	copy(end[targetHeader:], "ERROR")
	t := &Table{Name: "filter", hooks: 1<<Input | 1<<Forward | 1<<Output, end: newRule(nil, end)}
	for _, h := range []int{Input, Forward, Output} {
		t.chains = append(t.chains, &Chain{hook: h, Policy: Accept, policy: NewVerdict(Accept)})
	}
	return t
}

// asKernel is what the kernel would give back after a replacement.
func asKernel(r Replacement) (info, entries []byte) {
	q := r.Request
	info = slices.Concat(q[:NameSize], q[32:36], q[44:84], q[36:40], q[40:44])
	return info, q[ReplaceSize:]
}

func parse(t *testing.T, r Replacement) *Table {
	t.Helper()
	i, entries := asKernel(r)
	info, err := ParseInfo(i)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Parse("filter", info, entries)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRoundTrip(t *testing.T) {
	a := empty()
	mine := a.AddUser("mine")
	mine.Rules = []*Rule{NewAccept(Ports{Protocol: 17, SourcePort: 67, Destination: netip.MustParsePrefix("10.0.0.0/8")})}
	falls := NewVerdict(0)
	falls.falls = true
	a.Hook(Input).Rules = []*Rule{NewAccept(Ports{Protocol: 6, Port: 22}), falls, NewJump(mine), NewVerdict(Drop)}
	a.Hook(Output).Rules = []*Rule{NewJump(mine)}
	first := a.Replace()
	b := parse(t, first)
	second := b.Replace()
	binary.NativeEndian.PutUint32(first.Request[84:], uint32(second.Old)) // what the kernel had before is another table
	if !bytes.Equal(first.Request, second.Request) {
		t.Error("a table that was read is written otherwise")
	}
	if b.User("mine") == nil || b.User("nobody") != nil || b.Hook(Prerouting) != nil || b.Hook(Input).Rules[2].Jump() != b.User("mine") || b.Hook(Input).Rules[0].Jump() != nil {
		t.Error("the chains and where they lead")
	}

	// A rule more, a rule less: the others keep what they counted.
	in := b.Hook(Input)
	in.Rules = append([]*Rule{NewVerdict(Drop)}, in.Rules[1:]...)
	third := b.Replace()
	counters := make([]byte, third.Old*CounterSize)
	for i := range third.Old {
		counters[i*CounterSize] = byte(100 + i)
	}
	back, err := third.Counters(counters)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{0, 101, 102, 103, 104} {
		if got := back[CountersSize+i*CounterSize]; got != want {
			t.Errorf("rule %d counted %d, want %d", i, got, want)
		}
	}
	if _, err := third.Counters(counters[1:]); err == nil {
		t.Error("counters of another table")
	}
	parse(t, third)
}

func FuzzParse(f *testing.F) {
	a := empty()
	a.Hook(Input).Rules = []*Rule{NewJump(a.AddUser("mine"))}
	for _, t := range []*Table{empty(), a} {
		info, entries := asKernel(t.Replace())
		f.Add(info, entries)
	}
	f.Fuzz(func(t *testing.T, i, entries []byte) {
		info, err := ParseInfo(i)
		if err != nil {
			return
		}
		table, err := ParseReply("filter", info, append(make([]byte, EntriesSize), entries...))
		if err != nil {
			return
		}
		for _, c := range table.chains {
			for _, rule := range c.Rules {
				rule.Jump()
			}
		}
		r := table.Replace()
		i, again := asKernel(r)
		if len(again) != len(entries) {
			t.Fatalf("%d bytes of entries became %d", len(entries), len(again))
		}
		if len(InfoRequest("filter")) != InfoSize || len(Info{Size: len(again)}.EntriesRequest("filter")) != EntriesSize+len(again) {
			t.Fatal("requests of another size")
		}
		for _, c := range table.chains {
			for _, r := range c.Rules {
				if to := r.Jump(); to != nil && table.User(to.Name) == nil {
					t.Fatal("a rule leads to a chain that is none")
				}
			}
		}
		if in := table.Hook(Input); in != nil {
			in.Rules = append([]*Rule{NewAccept(Ports{Protocol: 6, Port: 22, Follows: true, Source: netip.MustParsePrefix("10.0.0.0/8")})}, in.Rules...)
			more := table.Replace()
			i, entries := asKernel(more)
			if info, err := ParseInfo(i); err != nil {
				t.Fatal(err)
			} else if _, err := Parse("filter", info, entries); err != nil {
				t.Fatalf("with a rule more it cannot be read: %v", err)
			}
		}
		if info, err = ParseInfo(i); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("filter", info, again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if _, err := r.Counters(make([]byte, r.Old*CounterSize)); err != nil {
			t.Fatal(err)
		}
	})
}
