package scenarios

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/testtable"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
	"viver.lan/qemu-tests/harness/outsider"
)

// combination is a Debian with one of its inits and one of its network managers; each has a
// tree of its own (images/debian/combinations).
type combination struct{ suite, init, manager string }

func (c combination) image() string { return c.suite + "-" + c.init + "-" + c.manager }

// inits are what process 1 calls itself.
var inits = map[string]string{"systemd": "systemd", "sysvinit": "init", "openrc": "init", "runit": "runit"}

// managers are the programs that a network manager runs; ifupdown runs none.
var managers = map[string]string{"ifupdown": "", "networkd": "systemd-networkd", "netplan": "systemd-networkd",
	"networkmanager": "NetworkManager", "connman": "connmand", "dhcpcd": "dhcpcd"}

// combinations reads the list.
func combinations(t *testing.T) (list []combination) {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "images", "debian", "combinations"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || inits[f[1]] == "" {
			t.Fatalf("combinations has the line %q, want a suite, an init and a network manager", line)
		}
		if _, known := managers[f[2]]; !known {
			t.Fatalf("nobody knows what %q runs", f[2])
		}
		list = append(list, combination{f[0], f[1], f[2]})
	}
	return list
}

// The network that the combinations boot in: a server gives addresses, and answers for one
// name that only it knows.
const (
	siteServer  = "192.168.40.1"
	sitePrinter = "192.168.40.9"
	siteName    = "printer.site.example"
)

// Every release of Debian, init and network manager, of which each image has one of each and
// is configured as its packages do it: the network manager wants every NIC by DHCP. Both
// machines have it, run it without anything that failed, and end:
//
//	[ dnsmasq ]──┤
//	[ CD ]──[ first ]──┤ lan
//	         [ node ]──┤
func TestFullDistributions(t *testing.T) {
	harness.Need(t, "dnsmasq")
	for _, c := range combinations(t) {
		t.Run(c.image(), func(t *testing.T) { c.boots(t) })
	}
}

func (c combination) boots(t *testing.T) {
	describe(t, c.image())
	booted, failed, again, off, seconds := "no", "-", "no", "no", "-"
	defer func() {
		testtable.Table{Name: "distributions", Columns: []string{"Debian", "init", "network manager", "booted", "failed", "booted again", "powered off", "seconds to services"}}.
			Add(t, c.suite, c.init, c.manager, booted, failed, again, off, seconds)
	}()
	lab := harness.New(t, harness.Options{VMs: 2})
	lan := segment(t, lab)
	siteNetwork(t, lan)
	nics := []harness.NIC{{LAN: lan}}
	first := start(t, lab, harness.Config{Name: "first", Memory: 768, CDROM: medium(t, c.image(), "", dutyRune(t)), NICs: nics})
	serving(t, first)
	node := start(t, lab, harness.Config{Name: "node", Memory: 768, NICs: nics})
	names := map[*harness.VM]string{first: ready(t, first), node: ready(t, node)}
	booted, seconds = "yes", time.Since(node.Started()).Round(time.Second).String()

	for vm := range names {
		wrong := c.failures(t, vm)
		if failed == "-" {
			failed = "none"
		}
		if wrong != "" {
			failed = wrong
			t.Errorf("%s: failed: %s\n%s", vm.Name(), wrong, c.journal(t, vm, wrong))
		}
		c.hasItsNetwork(t, vm)
	}
	knowsTheOther(t, first, node)
	knowsTheOther(t, node, first)
	eventually(t, first, "one machine to hold the role", func() bool { return onDuty(t, first) != onDuty(t, node) })
	eventually(t, node, "its hook booted", func() bool { return duty(t, node).Booted })

	resets := node.Resets()
	end(t, node, "reboot")
	if err := node.WaitReset(t.Context(), resets); err != nil {
		t.Fatal(err)
	}
	if name := ready(t, node); name != names[node] {
		t.Errorf("after the reboot the node is called %q, before %q", name, names[node])
	}
	again = "yes"
	eventually(t, node, "its hook booted, again", func() bool { return duty(t, node).Booted })
	off = "yes"
	for _, vm := range []*harness.VM{node, first} {
		end(t, vm, "poweroff")
		if why, err := vm.WaitOff(t.Context()); err != nil || why != "guest-shutdown" {
			off = "no"
			t.Errorf("%s went off by %q, %v; want a clean poweroff", vm.Name(), why, err)
		}
		console := vm.Console().Text()
		if !strings.Contains(console, "duty: "+names[vm]+" shuts down") {
			t.Errorf("%s: the hook shutdown did not run", vm.Name())
		}
		if strings.Contains(console, "I/O error") || strings.Contains(console, "SQUASHFS error") {
			t.Errorf("%s lost its root disk before it was off", vm.Name())
		}
	}
}

// end has a machine end itself; the agent may die before it answers.
func end(t *testing.T, vm *harness.VM, how string) {
	t.Helper()
	if _, err := vm.Do(t.Context(), execproto.Request{Argv: []string{how}}); err != nil {
		t.Logf("%s: %v", how, err)
	}
}

// siteNetwork has a server on the network that gives addresses and name service.
func siteNetwork(t *testing.T, lan *lan.Switch) {
	t.Helper()
	outsider.Start(t, lan, outsider.Config{Name: "dnsmasq", MAC: "02:00:00:00:40:01", Address: netip.MustParsePrefix(siteServer + "/24")},
		"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=", "--group=", "--pid-file=",
		"--interface="+outsider.LinkName, "--bind-interfaces", "--address=/"+siteName+"/"+sitePrinter, "--domain=site.example",
		"--dhcp-leasefile="+t.TempDir()+"/leases", "--dhcp-range=192.168.40.100,192.168.40.200,255.255.255.0,1h")
}

// failures says what of its services failed on a machine, "" if nothing did.
func (c combination) failures(t *testing.T, vm *harness.VM) string {
	t.Helper()
	if comm := strings.TrimSpace(run(t, vm, "@read", "/proc/1/comm")); comm != inits[c.init] {
		t.Errorf("process 1 is %q, want the distribution's %q", comm, inits[c.init])
	}
	switch c.init {
	case "systemd":
		eventually(t, vm, "systemd to have started all that it wants", func() bool {
			said, _ := vm.Run(t.Context(), "systemctl", "is-system-running") // which fails when it is degraded
			return said != "" && !strings.Contains(said, "starting") && !strings.Contains(said, "initializing")
		})
		return strings.TrimSpace(run(t, vm, "systemctl", "--failed", "--plain", "--no-legend"))
	case "openrc":
		var down string
		eventually(t, vm, "OpenRC to have started all that it wants", func() bool {
			said, err := vm.Run(t.Context(), "rc-status", "--nocolor", "sysinit", "boot", "default")
			down = lines(said, `\[\s*(stopped|starting|crashed)\s*\]`)
			return err == nil && down == ""
		})
		return down
	case "runit":
		var down string
		eventually(t, vm, "runit to run all that it wants", func() bool {
			said, _ := vm.Run(t.Context(), "sh", "-c", "sv status /etc/service/*") // which fails when one is down
			down = lines(said, `^(fail|warning|down: .*(normally|want) up)`)
			return down == ""
		})
	}
	// sysvinit keeps no account of what it has started; the scripts of daemons know.
	var dead string
	eventually(t, vm, "sysvinit to have started all that it wants", func() bool {
		dead = strings.TrimSpace(run(t, vm, "sh", "-c", `for s in /etc/rcS.d/S* /etc/rc2.d/S*; do grep -q status_of_proc "$s" || continue; "$s" status >/dev/null 2>&1 || echo "$s"; done`))
		return dead == ""
	})
	return dead
}

// journal is what systemd knows of the units that failed: a name alone does not tell a
// mistake from a machine that was too slow. Other inits keep no account.
func (c combination) journal(t *testing.T, vm *harness.VM, failed string) string {
	t.Helper()
	if c.init != "systemd" {
		return ""
	}
	var text strings.Builder
	for line := range strings.Lines(failed) {
		unit, _, _ := strings.Cut(line, " ")
		said, err := vm.Run(t.Context(), "journalctl", "--boot", "--no-pager", "--output=short-monotonic", "--lines=20", "--unit="+unit)
		text.WriteString(said)
		if err != nil {
			t.Logf("%s: the journal of %s: %v", vm.Name(), unit, err)
		}
	}
	return text.String()
}

// lines are those of a text that match.
func lines(text, pattern string) string {
	var list []string
	for line := range strings.Lines(text) {
		if regexp.MustCompile(pattern).MatchString(line) {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return strings.Join(list, "; ")
}

// hasItsNetwork looks whether a machine has its name, one address, which is the one that it
// booted with, and the name service of its lease, with its network manager running.
func (c combination) hasItsNetwork(t *testing.T, vm *harness.VM) {
	t.Helper()
	if program := managers[c.manager]; program != "" {
		eventually(t, vm, program+" to run", func() bool {
			_, err := vm.Run(t.Context(), "pidof", program)
			return err == nil
		})
	}
	who, place := wait(t, vm, "its name", func(event.Node) bool { return true }), whereIs(t, vm)
	if name := strings.TrimSpace(run(t, vm, "hostname")); name != who.Hostname {
		t.Errorf("%s calls itself %q, want %q", vm.Name(), name, who.Hostname)
	}
	said := run(t, vm, "ip", "-4", "-o", "address", "show", "dev", place.Card.Name)
	if strings.Count(said, " inet ") != 1 || !strings.Contains(said, " "+who.Address+"/") {
		t.Errorf("%s has the addresses %q, want %s alone", vm.Name(), said, who.Address)
	}
	var answer string
	eventually(t, vm, "an answer of the site's name server", func() bool {
		answer, _ = vm.Run(t.Context(), "getent", "ahostsv4", siteName)
		return answer != ""
	})
	if !strings.HasPrefix(answer, sitePrinter+" ") {
		t.Errorf("%s: %s is %q, want %s", vm.Name(), siteName, answer, sitePrinter)
	}
}

// knowsTheOther looks whether a machine finds another one by its name.
func knowsTheOther(t *testing.T, vm, other *harness.VM) {
	t.Helper()
	who := wait(t, other, "its name", func(event.Node) bool { return true })
	eventually(t, vm, "the address of "+who.Hostname, func() bool {
		said, _ := vm.Run(t.Context(), "getent", "ahostsv4", who.Hostname) // fails before it is known
		return strings.HasPrefix(said, who.Address+" ")
	})
}
