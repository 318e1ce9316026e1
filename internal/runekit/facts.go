package runekit

import (
	"viver.lan/internal/ether"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/runes"
)

// exampleFacts are those of a machine that has found out everything and holds all roles of
// a bundle, on a network of three.
func exampleFacts(b runes.Bundle) runes.Facts {
	var roles []string
	for _, o := range b.Offers() {
		roles = append(roles, o.Name.String())
	}
	f := runes.Facts{
		Hostname: "node-525400000001", MachineID: "0123456789abcdef0123456789abcdef", Domain: "lab.example", FirstNode: true,
		Interface: "eth0", MAC: ether.MAC{0x52, 0x54, 0, 0, 0, 1},
		Address: "10.77.0.1", PrefixLength: 16, Netmask: "255.255.0.0", Gateway: "10.77.255.254", DNS: []string{"10.77.255.254"},
		GraphicsDriver: "i915", GraphicsBus: "PCI:0:2:0", Framebuffer: true,
		AuthorizedKeys: []string{"ssh-ed25519 AAAA operator@computer"}, ConsoleLogin: true, FirewallOpen: true,
		HostKey: []string{"-----BEGIN OPENSSH PRIVATE KEY-----", "AAAA", "-----END OPENSSH PRIVATE KEY-----"}, HostKeyPublic: "ssh-ed25519 AAAA root@node",
		SerialConsoles: []string{"ttyS0"}, Init: string(initsystem.Systemd), Network: "example", Labels: []string{"big"}, Roles: roles,
	}
	f.Members = []runes.MemberFact{
		{Hostname: f.Hostname, Address: f.Address, MAC: f.MAC, First: true, HostKey: "ssh-ed25519 AAAA", CPUs: 4, Memory: 8192, Roles: roles},
		{Hostname: "node-525400000002", Address: "10.77.0.2", MAC: ether.MAC{0x52, 0x54, 0, 0, 0, 2}, CPUs: 2, Memory: 2048, Roles: roles},
		{Hostname: "node-525400000003", Address: "10.77.0.3", MAC: ether.MAC{0x52, 0x54, 0, 0, 0, 3}, Roles: roles},
	}
	return f
}
