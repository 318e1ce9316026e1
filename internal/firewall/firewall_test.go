package firewall

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A kernel is not asked for what it has not: that would load it.
func TestLoaded(t *testing.T) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	modules := "lib/modules/" + unix.ByteSliceToString(name.Release[:]) + "/modules.builtin"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  bool
	}{
		{"not loaded", map[string]string{"proc/modules": ""}, false},
		{"loaded", map[string]string{"proc/modules": "", "sys/module/nf_tables/refcnt": "3"}, true},
		{"a kernel without modules", nil, true},
		{"built in, says the initramfs", map[string]string{"proc/modules": "", modules: "kernel/net/netfilter/nf_tables.ko\n"}, true},
		{"built in, says the distribution", map[string]string{"proc/modules": "", "proc/1/root/" + modules: "kernel/x.ko\nkernel/net/netfilter/nf_tables.ko\n"}, true},
		{"another is built in", map[string]string{"proc/modules": "", modules: "kernel/net/netfilter/nf_tables_set.ko\n"}, false},
	} {
		k := New(Config{})
		k.root = t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(k.root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := k.loaded("nf_tables") || k.builtIn("nf_tables"); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// asked is a packet filter that must not be asked.
type asked struct{ t *testing.T }

func (a asked) open() (Report, []string, error) {
	a.t.Error("the kernel is asked for nftables, which nobody has loaded: it would load them")
	return Report{}, nil, nil
}

// Ports that come later are no reason to load nftables, either. The modules lie on the
// root disk, which this very process may serve.
func TestMorePortsLoadNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var port atomic.Uint32
		k := New(Config{More: func() Ports { return Ports{TCP: []uint16{uint16(port.Add(1))}} }})
		k.root = t.TempDir()
		k.nft = func([]pass, []pass) ruleset { return asked{t} }
		if err := os.Mkdir(filepath.Join(k.root, "proc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(k.root, "proc/modules"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*checkEvery)
		defer cancel()
		if err := k.Run(ctx); err != nil || port.Load() < 4 {
			t.Errorf("Run = %v; the ports were looked at %d times", err, port.Load())
		}
	})
}

// What a table cannot see is not asked of it.
func TestRulesFitTheTable(t *testing.T) {
	network, ports := netip.MustParsePrefix("10.77.0.0/16"), Ports{TCP: []uint16{6881}, UDP: []uint16{67}}
	for _, c := range []struct {
		family   nftables.TableFamily
		iptables bool
		in, out  int
	}{
		{nftables.TableFamilyINet, false, 4, 5},
		{nftables.TableFamilyNetdev, false, 4, 5},
		{nftables.TableFamilyIPv4, false, 3, 4},
		{nftables.TableFamilyIPv4, true, 3, 4},
		{nftables.TableFamilyIPv6, false, 1, 1},
		{nftables.TableFamilyIPv6, true, 0, 0},
	} {
		table := &nftables.Table{Name: "filter", Family: c.family}
		if in, out := len(rulesOf(incoming(network, ports), table, c.iptables)), len(rulesOf(outgoing(network, ports), table, c.iptables)); in != c.in || out != c.out {
			t.Errorf("family %d, iptables %v: %d rules in and %d out, want %d and %d", c.family, c.iptables, in, out, c.in, c.out)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x0a\x00\x02\x00input\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		_, _, _ = parseRule(message) // it does not panic
	})
}
