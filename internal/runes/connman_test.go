package runes

import "testing"

// ConnMan is told to leave the boot NIC alone, and the lease's name servers, beside what
// the image says; the next boot, with another NIC and other servers, finds nothing of it.
func TestConnManLeavesTheBootNICAlone(t *testing.T) {
	const name, list = "/etc/connman/main.conf", "vmnet,vboxnet,virbr,ifb,ve-,vb-,ham,veth"
	for what, c := range map[string]struct{ image, first, second string }{
		"Debian's": {"[General]\n\n# NetworkInterfaceBlacklist = vmnet\n# FallbackNameservers =\n",
			"[General]\nFallbackNameservers=10.77.0.1,10.77.0.2,viver-lease,\nNetworkInterfaceBlacklist=eth0,viver-boot-nic," + list + "\n\n# NetworkInterfaceBlacklist = vmnet\n# FallbackNameservers =\n",
			"[General]\nNetworkInterfaceBlacklist=eth1,viver-boot-nic," + list + "\n\n# NetworkInterfaceBlacklist = vmnet\n# FallbackNameservers =\n"},
		"none": {"",
			"[General]\nFallbackNameservers=10.77.0.1,10.77.0.2,viver-lease,\nNetworkInterfaceBlacklist=eth0,viver-boot-nic," + list + "\n",
			"[General]\nNetworkInterfaceBlacklist=eth1,viver-boot-nic," + list + "\n"},
		"a site's": {"[General]\nNetworkInterfaceBlacklist = wwan0\nFallbackNameservers = 9.9.9.9\n",
			"[General]\nNetworkInterfaceBlacklist = eth0,viver-boot-nic,wwan0\nFallbackNameservers = 10.77.0.1,10.77.0.2,viver-lease,9.9.9.9\n",
			"[General]\nNetworkInterfaceBlacklist = eth1,viver-boot-nic,wwan0\nFallbackNameservers = 9.9.9.9\n"},
	} {
		files := map[string]string{"usr/sbin/connmand": ""}
		if c.image != "" {
			files["etc/connman/main.conf"] = c.image
		}
		where, f := image(t, files), testFacts()
		for boot, want := range []string{c.first, c.first, c.second} {
			if boot == 2 {
				f.Interface, f.DNS = "eth1", nil
			}
			if r := apply(t, where, builtins(t), f)["network"]; r.Outcome != Applied {
				t.Fatalf("%s: %+v", what, r)
			}
			if got := read(t, where, name); got != want {
				t.Errorf("%s, boot %d: %q, want %q", what, boot, got, want)
			}
		}
	}
}
