// Package bootnet is a machine's place on its boot network: types for card, lease and
// offers, which the programs of one node hand on, and the functions that set and probe
// them in the kernel.
//
// It asks no server and decides nothing; that is for netconnect, which finds the place,
// and netguard, which keeps it. It knows one card, IPv4 and one address. The invariant:
// a Network that was read names a card and an address.
package bootnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"viver.lan/internal/ether"
)

// Network is the machine's place on its boot network.
type Network struct {
	Card  Card  `json:"card"`
	Lease Lease `json:"lease"`
	// Upper is the device that has the address when it is not the card itself,
	// because that has become a port of a bridge, for example. It is the guard's to
	// say.
	Upper *Card `json:"upper,omitempty"`
	// Offers is what the first node heard on this link when it looked for DHCP
	// servers.
	Offers []Offer `json:"offers,omitempty"`
}

// Foreign returns the offers of servers that are not VIVER's. While there are
// any, this machine must not serve addresses.
func (n Network) Foreign() []Offer {
	return slices.DeleteFunc(slices.Clone(n.Offers), func(o Offer) bool { return o.Viver })
}

// Holder returns the device that has the address.
func (n Network) Holder() Card {
	if n.Upper != nil {
		return *n.Upper
	}
	return n.Card
}

// ReadNetwork reads the JSON of a Network from a file.
func ReadNetwork(path string) (n Network, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil {
		return Network{}, fmt.Errorf("read the boot network: %w", err)
	}
	if n.Card.Index <= 0 || n.Card.MAC == (ether.MAC{}) || !n.Lease.Address.IsValid() {
		return Network{}, fmt.Errorf("read the boot network: %s names no card or no address", path)
	}
	return n, nil
}

// Offer is what a DHCP server on the link would give us.
type Offer struct {
	Server    netip.Addr `json:"server"`     // option 54, or the sender's address
	ServerMAC ether.MAC  `json:"server_mac"` // of the machine, or relay, that sent it
	// Address is invalid when the server offers no address (a proxyDHCP
	// server).
	Address netip.Addr `json:"address,omitzero"`
	// Network and Router are what the address would come with; invalid when
	// the server names none.
	Network netip.Prefix `json:"network,omitzero"`
	Router  netip.Addr   `json:"router,omitzero"`
	// Viver is true for a VIVER boot host. Any other server is foreign, and
	// while there is one we must serve no addresses.
	Viver bool `json:"viver,omitempty"`
}

// String is a sentence for people.
func (o Offer) String() string {
	kind := "foreign DHCP server"
	if o.Viver {
		kind = "VIVER boot host"
	}
	return fmt.Sprintf("%s %s (%s)", kind, o.Server, o.ServerMAC)
}
