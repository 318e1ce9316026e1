package scenarios

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/metainfo"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// What a distribution's own init and tools can do to the root disk, and to the
// disks of the machine, which are not ours. The same story under each init:
//
//	         [ CD ]──[ first ]──┤
//	[ two strangers' ]─[ node ]─┤ lan
//	[   disks        ]
func TestDistribution(t *testing.T) {
	t.Parallel()
	for _, d := range []struct {
		image, init string
		kills       int // reading the whole disk takes its time
	}{
		{"debian", "systemd", 3},
		{"debian-sysvinit", "init", 1},
	} {
		t.Run(d.image, func(t *testing.T) {
			t.Parallel()
			image := describe(t, d.image).RootFile()
			lab := harness.New(t, harness.Options{})
			lan := segment(t, lab)
			settings := "[ssh]\nauthorized-keys = [\"" + operatorsKey + "\"]\n"
			first := start(t, lab, harness.Config{Name: "first", Memory: 1024, CDROM: medium(t, d.image, settings, firewallRune(t), dutyRune(t)), NICs: []harness.NIC{{LAN: lan}}})
			serving(t, first)
			strangers := []string{
				disk(t, "foreign.img", media.DiskSpec{FS: "ext4", Files: map[string]string{"etc/fstab": "", "home/letter": "dear diary"}}),
				disk(t, "asleep.img", media.DiskSpec{FS: "swap", Hibernated: true}),
			}
			before := []string{sum(t, strangers[0]), sum(t, strangers[1])}
			node := start(t, lab, harness.Config{Name: "node", Memory: 1024, Disks: strangers, Boot: []harness.Device{harness.Network}, NICs: []harness.NIC{{LAN: lan}}})
			name := ready(t, node)
			names := map[*harness.VM]string{node: name, first: ready(t, first)}
			if comm := strings.TrimSpace(run(t, node, "@read", "/proc/1/comm")); comm != d.init {
				t.Fatalf("process 1 is %q, want the distribution's %q", comm, d.init)
			}

			t.Run("accounts and identity", func(t *testing.T) { nobodyGetsIn(t, first, node) })
			t.Run("host keys", func(t *testing.T) { knowEachOther(t, first, node) })
			t.Run("rights of the agent", func(t *testing.T) { agentIsNobody(t, first, node) })
			t.Run("killed daemon", func(t *testing.T) { killDaemon(t, node, d.kills, image.Size, image.SHA256.String()) })
			t.Run("network tools", func(t *testing.T) { disturbNetwork(t, node, first) })
			if d.init == "systemd" {
				t.Run("no update", func(t *testing.T) { nothingIsUpdated(t, first, node) })
				// Debian starts nftables under no other
				t.Run("firewall", func(t *testing.T) { firewallOpen(t, first, node) })
			}

			t.Run("roles", func(t *testing.T) { rolesMove(t, first, node) })

			resets := node.Resets()
			if _, err := node.Do(t.Context(), execproto.Request{Argv: []string{"reboot"}}); err != nil {
				t.Logf("reboot: %v", err) // the agent may die before it answers
			}
			if err := node.WaitReset(t.Context(), resets); err != nil {
				t.Fatal(err)
			}
			eventually(t, first, "the role of the machine that is gone", func() bool { return onDuty(t, first) })
			if again := ready(t, node); again != name {
				t.Errorf("after the reboot the node is called %q, before %q", again, name)
			}
			eventually(t, node, "its runes to be told of the network", func() bool { return duty(t, node).Booted })
			if !onDuty(t, first) || onDuty(t, node) {
				t.Errorf("a machine that booted took the role of another: %+v, %+v", duty(t, first), duty(t, node))
			}
			for _, vm := range []*harness.VM{node, first} {
				_, _ = vm.Do(t.Context(), execproto.Request{Argv: []string{"poweroff"}}) // as above
				if why, err := vm.WaitOff(t.Context()); err != nil || why != "guest-shutdown" {
					t.Errorf("%s went off by %q, %v; want a clean poweroff", vm.Name(), why, err)
				}
				if !strings.Contains(vm.Console().Text(), "duty: "+names[vm]+" shuts down") {
					t.Errorf("%s: the hook shutdown did not run", vm.Name())
				}
			}
			for i, path := range strangers {
				if after := sum(t, path); after != before[i] {
					t.Errorf("%s carries no marker and was written to", filepath.Base(path))
				}
			}
		})
	}
}

// operatorsKey is a public key as ssh-keygen writes it; its secret half is gone.
const operatorsKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHvN0h6c0m7qgE4w1c3ZkqS0yq0t5kJY3o0mJm3QbYxR operator@computer"

// nobodyGetsIn looks for ways in that nobody asked for, and for machines that
// pass for each other.
func nobodyGetsIn(t *testing.T, first, node *harness.VM) {
	for line := range strings.Lines(run(t, node, "@read", "/etc/shadow")) {
		if f := strings.Split(line, ":"); len(f) < 2 || !strings.HasPrefix(f[1], "!") && !strings.HasPrefix(f[1], "*") {
			t.Errorf("an account without a lock: %q", line)
		}
	}
	if keys := run(t, node, "@read", "/root/.ssh/authorized_keys"); !strings.Contains(keys, operatorsKey) {
		t.Errorf("the operator's key is not known: %q", keys)
	}
	for _, path := range []string{"/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"} {
		var said [2]string
		for i, vm := range []*harness.VM{first, node} {
			eventually(t, vm, path+" to be made", func() bool {
				said[i], _ = vm.Run(t.Context(), "@read", path)
				said[i] = strings.TrimSpace(said[i])
				return said[i] != ""
			})
		}
		if said[0] == said[1] {
			t.Errorf("two machines have the same %s: %s", path, said[0])
		}
	}
	var config string
	eventually(t, node, "the SSH server to have what it needs", func() bool {
		out, err := node.Run(t.Context(), "/usr/sbin/sshd", "-T")
		config = out
		return err == nil
	})
	if !strings.Contains(config, "passwordauthentication no") {
		t.Errorf("sshd takes passwords:\n%s", config)
	}
}

// nothingIsUpdated looks whether systemd takes a boot for the first one after an update
// of /usr, for which Debian 12 has one unit.
func nothingIsUpdated(t *testing.T, vms ...*harness.VM) {
	for _, vm := range vms {
		said := run(t, vm, "systemctl", "show", "--property=ConditionResult", "systemd-sysusers.service")
		if strings.TrimSpace(said) != "ConditionResult=no" {
			t.Errorf("%s made its users again: %s", vm.Name(), said)
		}
	}
}

// knowEachOther has ssh on one machine meet another for the first time: it knows
// its key, and comes as far as having none of its own.
func knowEachOther(t *testing.T, from, to *harness.VM) {
	who := wait(t, to, "its name", func(event.Node) bool { return true })
	ssh := "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null root@" + who.Address + " true 2>&1 || true"
	eventually(t, from, "ssh to know "+who.Address+" by its key", func() bool {
		said := run(t, from, "sh", "-c", ssh) // sshd may not run yet
		return strings.Contains(said, "Permission denied (publickey")
	})
	if said := run(t, from, "ssh-keygen", "-F", who.Hostname, "-f", "/etc/ssh/ssh_known_hosts2"); !strings.Contains(said, "ssh-ed25519") {
		t.Errorf("no key of %s: %q", who.Hostname, said)
	}
}

// agentIsNobody looks at the rights and the priority that the agents have.
func agentIsNobody(t *testing.T, vms ...*harness.VM) {
	for _, vm := range vms {
		pids := processes(t, vm, "@viverd")
		if len(pids) != 1 {
			t.Errorf("processes called @viverd on %s: %v, want one", vm.Name(), pids)
			continue
		}
		status := run(t, vm, "@read", "/proc/"+strconv.Itoa(pids[0])+"/status")
		id := strconv.Itoa(control.AgentID)
		for _, want := range []string{"\nUid:\t" + id + "\t" + id, "\nCapEff:\t0000000000002400\n", "\nCapBnd:\t0000000000002400\n", "\nNoNewPrivs:\t1\n"} {
			if !strings.Contains(status, want) {
				t.Errorf("the agent of %s: no %q in\n%s", vm.Name(), want, status)
			}
		}
		session := run(t, vm, "@read", "/proc/"+strconv.Itoa(pids[0])+"/autogroup")
		_, stat, _ := strings.Cut(run(t, vm, "@read", "/proc/"+strconv.Itoa(pids[0])+"/stat"), ") ")
		if fields := strings.Fields(stat); len(fields) < 17 || fields[16] != "-5" || !strings.Contains(session, "nice -5") { // proc_pid_stat(5), sched(7)
			t.Errorf("the agent of %s has another priority: %s %s", vm.Name(), stat, session)
		}
	}
}

// processes returns the processes of a guest whose first argument is name.
func processes(t *testing.T, vm *harness.VM, name string) []int {
	t.Helper()
	var pids []int
	for line := range strings.Lines(run(t, vm, "@ps")) {
		var p execproto.Process
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		if len(p.Argv) > 0 && p.Argv[0] == name {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// killDaemon kills the block daemon some times while the root disk is read.
func killDaemon(t *testing.T, vm *harness.VM, times int, size int64, want string) {
	for range times {
		pids := processes(t, vm, "@vfield")
		if len(pids) != 1 {
			t.Fatalf("processes called @vfield: %v, want one", pids)
		}
		before := status(t, vm)
		vm.Forget()
		run(t, vm, "@drop-caches")
		type result struct {
			digest string
			err    error
		}
		done := make(chan result, 1)
		go func() {
			got, err := hash(t, vm, "/dev/nbd0", size)
			done <- result{got, err}
		}()
		run(t, vm, "@kill", "KILL", strconv.Itoa(pids[0]))
		run(t, vm, "date", "-s", "2031-05-06 07:08:09") // nothing may hang on the clock
		wait(t, vm, "the disk to be attached again", func(a event.Attached) bool { return a.Again })
		if got := <-done; got.err != nil || got.digest != want {
			t.Fatalf("read across the daemon's death: %s, %v; want %s", got.digest, got.err, want)
		}
		s := status(t, vm)
		fetched, missing := int64(s.Transfer.FromOrigin+s.Transfer.FromPeers), int64(before.Transfer.Pieces-before.Transfer.Have)*metainfo.DefaultPieceLength
		// What was found is hashed by who reads it; what the kill has left half written is
		// fetched. A daemon that found nothing would fetch all of the disk.
		if fetched > missing+size/20 {
			t.Errorf("the new daemon fetched %d bytes where %d were missing: it did not find the pieces of the killed one", fetched, missing)
		}
	}
	if log := run(t, vm, "dmesg"); strings.Contains(log, "I/O error") || strings.Contains(log, "SQUASHFS error") {
		t.Errorf("the kernel saw an error:\n%s", log)
	}
}

// firewallRune is a bundle with a firewall that drops what nobody asked for, loaded
// when the distribution starts.
func firewallRune(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "firewall")
	for name, text := range map[string]string{
		"rune.toml": "name = \"firewall\"\n[symlinks]\n\"/etc/systemd/system/sysinit.target.wants/nftables.service\" = \"/lib/systemd/system/nftables.service\"\n",
		"files/etc/nftables.conf": "flush ruleset\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n" +
			"\t\tiif lo accept\n\t\tct state established,related accept\n\t\ttcp dport 22 accept\n\t}\n}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// firewallOpen looks whether the firewall is there and VIVER's ports are open, also
// after it was loaded again, and others are not.
func firewallOpen(t *testing.T, first, node *harness.VM) {
	to := whereIs(t, first).Lease.Address.Addr()
	check := func() string {
		var checks []struct{ Name, State, Text string }
		if err := json.Unmarshal([]byte(run(t, first, "/usr/local/bin/viver", "doctor", "-o", "json")), &checks); err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			if c.Name == "firewall" && c.State == "ok" {
				return c.Text
			}
		}
		return ""
	}
	eventually(t, first, "the doctor to say where ports are open", func() bool { return strings.Contains(check(), "inet filter input") })
	run(t, first, "nft", "-f", "/etc/nftables.conf")
	eventually(t, node, "the swarm's port to be open after a reload", func() bool { return connects(t, node, to.String(), control.SwarmPort) })
	if rules := run(t, first, "nft", "list", "ruleset"); !strings.Contains(rules, "policy drop") || !strings.Contains(rules, "jump viver-in") {
		t.Errorf("the rules are\n%s", rules)
	}
}

// whereIs returns where a machine stands on its network.
func whereIs(t *testing.T, vm *harness.VM) (place bootnet.Network) {
	t.Helper()
	if err := json.Unmarshal([]byte(run(t, vm, "@read", control.BootNetworkFile)), &place); err != nil {
		t.Fatal(err)
	}
	return place
}

// connects reports whether a machine can open a connection.
func connects(t *testing.T, from *harness.VM, host string, port int) bool {
	t.Helper()
	_, err := from.Run(t.Context(), "timeout", "5", "bash", "-c", "echo >/dev/tcp/"+host+"/"+strconv.Itoa(port))
	return err == nil
}

// disturbNetwork removes the address and takes the link down, as a network tool
// would, and builds the NIC into other devices; the guard puts back what is missing,
// and the other machine and this one reach each other.
func disturbNetwork(t *testing.T, vm, other *harness.VM) {
	place, to := whereIs(t, vm), whereIs(t, other)
	card, self, peer := place.Card.Name, place.Lease.Address.Addr(), to.Lease.Address.Addr()
	for _, c := range []struct{ script, device string }{
		{"ip address flush dev eth0", "eth0"},
		{"ip link set eth0 down", "eth0"},
		{"ip link add br0 type bridge; ip link set br0 up; ip link set eth0 master br0", "br0"},
		{"ip link set eth0 nomaster; ip link del br0", "eth0"},
		// bond0 comes with the module where nobody has told it otherwise.
		{"ip link add bond1 type bond mode active-backup; ip link set eth0 down; ip link set eth0 master bond1; ip link set bond1 up", "bond1"},
		{"ip link set eth0 nomaster; ip link del bond1", "eth0"},
		{"ip link add vrf0 type vrf table 10; ip link set vrf0 up; ip link set eth0 master vrf0", "eth0"},
		{"ip link set eth0 nomaster; ip link del vrf0", "eth0"},
	} {
		run(t, vm, "sh", "-ec", strings.ReplaceAll(c.script, "eth0", card)+"; ip neigh flush all")
		device := strings.ReplaceAll(c.device, "eth0", card)
		eventually(t, vm, device+" to be up with the address after "+c.script, func() bool {
			text := run(t, vm, "ip", "-br", "address", "show", "dev", device)
			return strings.Contains(text, self.String()) && strings.Contains(text, "UP")
		})
		eventually(t, vm, "the other machine after "+c.script, func() bool { return connects(t, vm, peer.String(), control.SwarmPort) })
		eventually(t, other, "this machine after "+c.script, func() bool { return connects(t, other, self.String(), control.SwarmPort) })
	}
	if s := status(t, vm); s.Address != self {
		t.Errorf("viver status says that the node's address is %s, want %s", s.Address, self)
	}
}
