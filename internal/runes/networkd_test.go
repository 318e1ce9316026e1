package runes

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/tail"
)

// TestNetnsNetworkd shows our file to the real systemd-networkd, beside a file
// of the distribution that wants the same NIC:
//
//	eth0 (the boot NIC, 10.77.3.4/16, set by us) --veth-- peer
//
// It must leave the address alone, add none, and count the NIC as online, or
// network-online.target would wait for two minutes.
func TestNetnsNetworkd(t *testing.T) {
	const networkd, waitOnline = "/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd-wait-online"
	if _, err := os.Stat(waitOnline); err != nil {
		t.Skipf("no systemd-networkd to ask: %v", err)
	}
	if !inNamespaces(t) {
		return
	}
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	where := image(t, map[string]string{"usr/lib/systemd/systemd-networkd": "", "passwd": "root:x:0:0::/:\nsystemd-network:x:0:0::/:\n", "group": "root:x:0:\nsystemd-network:x:0:\n"})
	apply(t, where, builtins(t), testFacts())
	ours := filepath.Join(where.Run, "systemd/network/00-viver.network")
	text := read(t, where, "/run/systemd/network/00-viver.network")
	const noVirtual = "Kind=!*\n" // our NIC is a virtual one here
	if !strings.Contains(text, noVirtual) {
		t.Fatalf("%s holds %q", ours, text)
	}
	must(t, os.WriteFile(ours, []byte(strings.Replace(text, noVirtual, "", 1)), 0o644))
	must(t, os.WriteFile(filepath.Join(filepath.Dir(ours), "10-distribution.network"),
		[]byte("[Match]\nName=eth*\n[Network]\nDHCP=yes\nAddress=192.168.9.9/24\n"), 0o644))
	must(t, os.MkdirAll(filepath.Join(where.Run, "systemd/netif"), 0o755))

	// It wants to become the user systemd-network, which here is root.
	must(t, syscall.Mount(filepath.Join(where.Root, "passwd"), "/etc/passwd", "", syscall.MS_BIND, ""))
	must(t, syscall.Mount(filepath.Join(where.Root, "group"), "/etc/group", "", syscall.MS_BIND, ""))
	must(t, syscall.Mount(where.Run, "/run", "", syscall.MS_BIND, ""))
	must(t, syscall.Mount("sysfs", "/sys", "sysfs", syscall.MS_RDONLY, "")) // read-only: it asks no udev
	ip := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	ip("link", "set", "lo", "up")
	ip("link", "add", "eth0", "address", testFacts().MAC.String(), "type", "veth", "peer", "name", "peer")
	ip("link", "set", "peer", "up")
	ip("link", "set", "eth0", "up")
	ip("addr", "add", "10.77.3.4/16", "dev", "eth0")
	ip("route", "add", "default", "via", "10.77.0.1")
	before := ip("-4", "addr", "show", "dev", "eth0") + ip("-4", "route")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	daemon := exec.CommandContext(ctx, networkd)
	daemon.Cancel = func() error { return daemon.Process.Signal(syscall.SIGTERM) }
	words := tail.New(maxHookOutput)
	daemon.Stdout, daemon.Stderr = words, words
	must(t, daemon.Start())
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if states, _ := filepath.Glob("/run/systemd/netif/links/*"); len(states) > 0 {
			break // it has seen the NICs
		}
		if time.Now().After(deadline) {
			t.Fatalf("networkd is not ready: %s", words)
		}
	}
	online, err := exec.CommandContext(ctx, waitOnline, "--timeout=300").CombinedOutput()
	if err != nil {
		t.Errorf("the network never counts as online: %v\n%s", err, online)
	}
	during := ip("-4", "addr", "show", "dev", "eth0") + ip("-4", "route")
	cancel()
	_ = daemon.Wait() // what it says on the way out is not at stake
	after := ip("-4", "addr", "show", "dev", "eth0") + ip("-4", "route")
	for when, got := range map[string]string{"while it ran": during, "after it ended": after} {
		if got != before {
			t.Errorf("networkd changed the boot NIC, %s:\n%s\nbefore:\n%s\nit said:\n%s", when, got, before, words)
		}
	}
	if !strings.Contains(words.String(), "00-viver.network") {
		t.Errorf("networkd did not take our file: %s", words)
	}
}
