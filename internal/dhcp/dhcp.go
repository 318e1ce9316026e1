// Package dhcp decides what a boot host says to a DHCP or PXE client.
//
// It is a pure function from a request, a configuration and an address table
// to a reply or to silence with a reason; sockets, clocks and sending are the
// caller's. It is not a general DHCP server: a machine that does not boot from
// us is another client and hears nothing. The invariant: no decision ever gives an
// address that another machine holds, and outside of full mode no decision
// gives an address at all.
package dhcp

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
)

// NodeClass begins option 60 of every request that VIVER's own initramfs
// sends. By it the boot host knows its nodes from other clients.
const NodeClass = "VIVER"

// OptionMark is the private DHCP option (224, RFC 3942) by which a VIVER boot
// host marks its answers, and Mark is its content: by it a search for
// foreign DHCP servers distinguishes them from ours.
const (
	OptionMark = 224
	Mark       = "viver"
)

// EthernetMTU is what every card and switch carries, in bytes.
const EthernetMTU = 1500

// Ports of the protocol (RFC 2131, PXE specification 2.1).
const (
	ServerPort = 67
	ClientPort = 68
	PXEPort    = 4011
)

// Mode says how much of DHCP is ours on a network.
type Mode string

// The modes of a boot host.
const (
	// Full: the network has no other DHCP server, we give addresses.
	Full Mode = "full"
	// Proxy: another server gives the addresses, we add the boot program.
	Proxy Mode = "proxy"
	// External: the other server also names the boot program; we are silent.
	External Mode = "external"
)

// Platform is a kind of firmware that needs its own boot program.
type Platform string

// The platforms option 93 can tell apart and an image may have programs for.
const (
	BIOS  Platform = "bios"
	X64   Platform = "x64"
	IA32  Platform = "ia32"
	ARM64 Platform = "arm64"
)

// Program is the boot program of one platform. An empty field means that the
// image has none for that way of loading it.
type Program struct {
	TFTP string // file name on our TFTP server
	URL  string // for UEFI HTTP Boot
}

// Config is everything about this boot host that a decision depends on.
type Config struct {
	Mode Mode
	// MAC is the host's own; its own requests are not answered.
	MAC ether.MAC
	// Address is the host's address with the network's prefix length.
	Address netip.Prefix
	// Router and DNS go to the nodes as they are. When they are empty only
	// firmware hears of us in their place, because some firmware wants to see
	// both; a node with a dead default route would wait where it could fail.
	Router netip.Addr
	DNS    []netip.Addr
	// Lease is how long an address is given for.
	Lease time.Duration
	// MTU is the link's, in bytes; zero means Ethernet's. A smaller one goes to
	// everybody who gets an address (option 26). A larger one stays ours: that
	// this card can send jumbo frames does not mean that a switch forwards them.
	MTU int
	// Programs by platform. A platform that is missing gets no answer.
	Programs map[Platform]Program
	// Script is the URL that iPXE continues with.
	Script string
	// Hostname names a machine; nil means hostname.Default with its own prefix.
	Hostname func(ether.MAC) string
}

// Validate reports what makes the configuration unusable.
func (c *Config) Validate() error {
	switch {
	case c.Mode != Full && c.Mode != Proxy && c.Mode != External:
		return fmt.Errorf("DHCP mode %q, expected %s, %s or %s", c.Mode, Full, Proxy, External)
	case !c.Address.IsValid() || !c.Address.Addr().Is4():
		return fmt.Errorf("own address %s is not IPv4 with a prefix length", c.Address)
	case c.Mode == Full && c.Lease < time.Minute:
		return fmt.Errorf("lease of %s, expected a minute at least", c.Lease)
	case c.Script == "":
		return errors.New("no script for iPXE")
	}
	return nil
}

func (c *Config) hostname(m ether.MAC) string {
	if c.Hostname != nil {
		return c.Hostname(m)
	}
	return hostname.Default(hostname.DefaultPrefix, m.String())
}

// Candidate returns the address that attempt number n (0, 1, 2, …) proposes
// for a machine. It depends on nothing but its arguments, so that boot hosts
// which never met give a machine the same address.
func Candidate(pool netip.Prefix, m ether.MAC, n int) netip.Addr {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(m[:], uint32(n)))
	first := binary.BigEndian.Uint32(pool.Masked().Addr().AsSlice())
	size := uint64(1) << (32 - pool.Bits())
	for at := binary.BigEndian.Uint64(sum[:8]); ; at++ {
		addr := first + uint32(at%size)
		if a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, addr))); assignable(pool, a) {
			return a
		}
	}
}

// assignable tells whether a machine can have addr: not the pool's first or
// last one, which may be the network's own, and none that ends in 0 or 255,
// which is legal inside a wide pool but dropped by old network gear.
func assignable(pool netip.Prefix, addr netip.Addr) bool {
	if !pool.Contains(addr) || addr == pool.Masked().Addr() {
		return false
	}
	if last := addr.As4()[3]; last == 0 || last == 255 {
		return false
	}
	return pool.Contains(addr.Next())
}

// ValidatePool reports why a pool cannot be used beside our own address. A
// pool has 4 addresses at least and lies inside the network.
func ValidatePool(pool, network netip.Prefix) error {
	switch {
	case !pool.IsValid() || !pool.Addr().Is4():
		return fmt.Errorf("address pool %s is not IPv4", pool)
	case pool.Bits() > 30 || pool.Bits() < 8:
		return fmt.Errorf("address pool %s: expected a prefix length of 8 to 30", pool)
	case pool.Bits() < network.Bits() || !network.Contains(pool.Addr()):
		return fmt.Errorf("address pool %s is not inside the network %s", pool, network.Masked())
	}
	return nil
}
