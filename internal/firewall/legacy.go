package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"viver.lan/internal/xtables"
)

// legacy is the kernel's ip_tables, which iptables-legacy uses.
type legacy struct {
	in, out []pass
	filled  map[string]bool // tables whose chains of ours this one has filled
	root    string          // of /proc
}

// Options of sockets, see linux/netfilter_ipv4/ip_tables.h.
const (
	setReplace  = 64
	setCounters = 65
	getInfo     = 64
	getEntries  = 65
)

// maxTable bounds what is read of one table, in bytes.
const maxTable = 64 << 20

// open implements ruleset.
func (l *legacy) open() (r Report, changed []string, err error) {
	// The kernel lists what somebody has loaded; to ask for another would load it.
	names, err := os.ReadFile(filepath.Join(l.root, "proc/thread-self/net/ip_tables_names"))
	if err != nil || len(names) == 0 {
		return r, nil, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return r, nil, fmt.Errorf("read ip_tables: %w", err)
	}
	defer unix.Close(fd)
	for _, name := range strings.Fields(string(names)) {
		if name == "nat" {
			continue // it drops nothing
		}
		open, new, err := l.openTable(fd, name)
		if err != nil {
			r.Problems = append(r.Problems, fmt.Sprintf("the table %s of iptables-legacy: %v", name, err))
			continue
		}
		r.Open = append(r.Open, open...)
		changed = append(changed, new...)
	}
	return r, changed, nil
}

// openTable makes the chains of one table jump to ours first. It returns those that
// need it, and those that were changed.
func (l *legacy) openTable(fd int, name string) (open, changed []string, err error) {
	_, open, changed, err = l.edit(fd, name)
	if err != nil || len(changed) == 0 {
		return open, nil, err
	}
	unlock, free := l.lock()
	if !free {
		return open, nil, nil // another program edits it; the next check is soon
	}
	defer unlock()
	t, open, changed, err := l.edit(fd, name)
	if err != nil || len(changed) == 0 {
		return open, nil, err
	}
	if err := writeTable(fd, t); err != nil {
		return open, nil, err
	}
	l.filled[name] = true
	return open, changed, nil
}

// lock keeps the distribution's iptables out while a table is read and written:
// both lock a file (xtables-legacy(8)). Without the file there is no iptables.
func (l *legacy) lock() (unlock func(), free bool) {
	f, err := os.OpenFile(filepath.Join(l.root, "proc/1/root/run/xtables.lock"), os.O_RDONLY, 0)
	if err != nil {
		return func() {}, true
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, false
	}
	return func() { f.Close() }, true
}

// edit reads a table and puts in what is missing.
func (l *legacy) edit(fd int, name string) (t *xtables.Table, open, changed []string, err error) {
	if t, err = readTable(fd, name); err != nil {
		return nil, nil, nil, err
	}
	for _, h := range []struct {
		hook      int
		name, own string
		list      []pass
	}{
		{xtables.Prerouting, "PREROUTING", chainIn, l.in},
		{xtables.Input, "INPUT", chainIn, l.in},
		{xtables.Output, "OUTPUT", chainOut, l.out},
		{xtables.Postrouting, "POSTROUTING", chainOut, l.out},
	} {
		c := t.Hook(h.hook)
		if c == nil {
			continue
		}
		needed, done := openHook(t, c, h.own, acceptsOf(h.list), l.filled[name])
		label := "iptables-legacy " + name + " " + h.name
		if needed {
			open = append(open, label)
		}
		if done {
			changed = append(changed, label)
		}
	}
	return t, open, changed, nil
}

// openHook puts a jump to our chain at the top of a chain that may drop. Our chain, if it
// was filled before, has what is wanted when it has as many rules.
func openHook(t *xtables.Table, c *xtables.Chain, name string, want []*xtables.Rule, filled bool) (needed, done bool) {
	ours := t.User(name)
	isOurs := func(r *xtables.Rule) bool { return ours != nil && r.Jump() == ours }
	foreign := slices.ContainsFunc(c.Rules, func(r *xtables.Rule) bool { return !isOurs(r) })
	if !foreign && c.Policy == xtables.Accept {
		return false, false
	}
	if filled && len(c.Rules) > 0 && isOurs(c.Rules[0]) && len(ours.Rules) == len(want) {
		return true, false
	}
	rest := slices.DeleteFunc(slices.Clone(c.Rules), isOurs)
	ours = t.AddUser(name)
	ours.Rules = want
	c.Rules = slices.Insert(rest, 0, xtables.NewJump(ours))
	return true, true
}

func acceptsOf(list []pass) (rules []*xtables.Rule) {
	for _, p := range list {
		if p.proto == unix.IPPROTO_ICMPV6 {
			continue
		}
		m := xtables.Ports{Protocol: p.proto, Follows: p.follows}
		if p.at == source {
			m.SourcePort = p.port
		} else {
			m.Port = p.port
		}
		if p.outgoing {
			m.Destination = p.far
		} else {
			m.Source = p.far
		}
		rules = append(rules, xtables.NewAccept(m))
	}
	return rules
}

func readTable(fd int, name string) (*xtables.Table, error) {
	b := xtables.InfoRequest(name)
	if err := getOption(fd, getInfo, b); err != nil {
		return nil, fmt.Errorf("ask for its size: %w", err)
	}
	info, err := xtables.ParseInfo(b)
	if err != nil {
		return nil, err
	}
	if info.Size > maxTable {
		return nil, fmt.Errorf("it has %d bytes, %d are the most that is read", info.Size, maxTable)
	}
	b = info.EntriesRequest(name)
	if err := getOption(fd, getEntries, b); err != nil {
		return nil, fmt.Errorf("read it: %w", err) // EAGAIN: somebody changed it meanwhile
	}
	return xtables.ParseReply(name, info, b)
}

// writeTable replaces the table and gives the rules that stay their counters.
func writeTable(fd int, t *xtables.Table) error {
	r := t.Replace()
	counters := make([]byte, r.Old*xtables.CounterSize)
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(counters) > 0 {
		pin.Pin(&counters[0])
		binary.NativeEndian.PutUint64(r.Request[r.CountersAt:], uint64(uintptr(unsafe.Pointer(&counters[0]))))
	}
	if err := setOption(fd, setReplace, r.Request); err != nil {
		return fmt.Errorf("write it: %w", err)
	}
	back, err := r.Counters(counters)
	if err != nil {
		return err
	}
	if err := setOption(fd, setCounters, back); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("give the rules their counters back: %w", err)
	}
	return nil
}

func getOption(fd, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func setOption(fd, option int, b []byte) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_IP, option, string(b))
}
