package blockdaemon

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"viver.lan/internal/bytesize"
	"viver.lan/internal/ether"
)

// Options say what a volume on any machine serves, and how. Errors name them as
// the flags of vfield.
type Options struct {
	Listen   netip.AddrPort // where NBD clients are served
	Swarm    netip.AddrPort // where peers connect
	Gossip   netip.AddrPort // where it takes part in membership; zero: it does not
	Metainfo string         // file
	Data     string         // directory that holds the whole image; "": none
	Public   string         // file of the owner's public key; "": any owner will do
	Store    string         // file that pieces are kept in; "": in memory
	Status   string         // Unix socket for viver status; "": none
	Name     string         // what the node is called; "": made of the host's name and addresses
	Key      string         // file of the node's key; "": beside Store, or a new key each time
	Cache    bytesize.Size  // for pieces; 0: for the whole image
	Verbose  bool           // log every connection
	Peers    Addresses      // other nodes
	Origins  Addresses      // the first node
	Seeds    Addresses      // members to join
}

// UsageError is a mistake in the command line itself.
type UsageError string

func (e UsageError) Error() string { return string(e) }

// complete checks the options, and makes a name if there is none.
func (o *Options) complete() error {
	switch {
	case !o.Listen.IsValid():
		return UsageError("--listen is missing: where shall NBD clients be served?")
	case o.Metainfo == "":
		return UsageError("--metainfo is missing: which image?")
	case len(o.Seeds) > 0 && !o.Gossip.IsValid():
		return UsageError("--seed names members to join, so --gossip is needed too: at which address does this node take part?")
	case o.Name != "":
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("--name is missing and the host has none: %w", err)
	}
	o.Name = defaultName(host, o.Swarm, macs())
	return nil
}

// Addresses is a list of addresses.
type Addresses []netip.AddrPort

// Add adds addresses that commas separate.
func (a *Addresses) Add(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		addr, err := netip.ParseAddrPort(one)
		if err != nil {
			return err
		}
		*a = append(*a, addr)
	}
	return nil
}

// longestName is what the members' facts have room for, in bytes.
const longestName = 63

// defaultName is one that no other node has, not even a copy of this machine,
// and that is the same at the next start. Two nodes of one name are one node to
// the others.
func defaultName(host string, swarm netip.AddrPort, macs []ether.MAC) string {
	name := host + ":" + strconv.Itoa(int(swarm.Port()))
	if !swarm.Addr().IsUnspecified() {
		name = host + "/" + swarm.String()
	}
	// Addresses that the maker gave come first: others may change.
	slices.SortFunc(macs, func(a, b ether.MAC) int {
		return cmp.Or(cmp.Compare(a[0]&2, b[0]&2), a.Compare(b))
	})
	if len(macs) > 0 {
		name += "/" + macs[0].String()
	}
	return name[max(0, len(name)-longestName):] // the end is what tells nodes apart
}

// macs returns the Ethernet addresses of this machine.
func macs() (list []ether.MAC) {
	links, err := net.Interfaces()
	if err != nil {
		return nil // a name without them will do
	}
	for _, l := range links {
		if mac, err := ether.MACOf(l.HardwareAddr); err == nil {
			list = append(list, mac)
		}
	}
	return list
}
