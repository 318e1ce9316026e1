package runes

import (
	"strings"
	"testing"
)

// ConnMan is told to leave the boot NIC alone, beside what the image says; the next boot,
// with another NIC, finds nothing of it. The name servers are the lease's.
func TestConnManLeavesTheBootNICAlone(t *testing.T) {
	const name, list = "/etc/connman/main.conf", "vmnet,vboxnet,virbr,ifb,ve-,vb-,ham,veth"
	for what, c := range map[string]struct{ image, first, second string }{
		"Debian's": {"[General]\n\n# NetworkInterfaceBlacklist = vmnet\n# FallbackNameservers =\n",
			"[General]\nNetworkInterfaceBlacklist=eth0,viver-boot-nic," + list + "\n\n# NetworkInterfaceBlacklist = vmnet\n# FallbackNameservers =\n",
			"[General]\nNetworkInterfaceBlacklist=eth1,viver-boot-nic," + list + "\n\n# NetworkInterfaceBlacklist = vmnet\n# FallbackNameservers =\n"},
		"none": {"",
			"[General]\nNetworkInterfaceBlacklist=eth0,viver-boot-nic," + list + "\n",
			"[General]\nNetworkInterfaceBlacklist=eth1,viver-boot-nic," + list + "\n"},
		"a site's": {"[General]\nNetworkInterfaceBlacklist = wwan0\nFallbackNameservers = 9.9.9.9\n",
			"[General]\nNetworkInterfaceBlacklist = eth0,viver-boot-nic,wwan0\nFallbackNameservers = 9.9.9.9\n",
			"[General]\nNetworkInterfaceBlacklist = eth1,viver-boot-nic,wwan0\nFallbackNameservers = 9.9.9.9\n"},
	} {
		files := map[string]string{"usr/sbin/connmand": "", "usr/lib/tmpfiles.d/connman_resolvconf.conf": "", "etc/resolv.conf": "->/run/connman/resolv.conf"}
		if c.image != "" {
			files["etc/connman/main.conf"] = c.image
		}
		where, f := image(t, files), testFacts()
		for boot, want := range []string{c.first, c.first, c.second} {
			if boot == 2 {
				f.Interface = "eth1"
			}
			if r := apply(t, where, builtins(t), f)["network"]; r.Outcome != Applied {
				t.Fatalf("%s: %+v", what, r)
			}
			if got := read(t, where, name); got != want {
				t.Errorf("%s, boot %d: %q, want %q", what, boot, got, want)
			}
			link, servers := read(t, where, "/run/tmpfiles.d/connman_resolvconf.conf"), read(t, where, "/run/viver-resolv.conf")
			if !strings.Contains(link, "\nL+ /etc/resolv.conf - - - - /run/viver-resolv.conf\n") || !strings.Contains(servers, "nameserver 10.77.0.1\n") {
				t.Errorf("%s, boot %d: %q leads to %q, want the lease's servers", what, boot, link, servers)
			}
		}
	}
}
