package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"viver.lan/internal/manifest"
)

// beacon is what a machine sends to all on its link: the gossip port of one that
// runs this image, how many machines do so, and the medium of those.
//
// It goes to 224.0.0.254, the link-local group that is reserved for experiments (RFC
// 4727, 2.4.2): no router forwards that range, a switch that prunes groups
// floods it all the same (RFC 4541, 2.1.2), and sending to it takes an address
// and no route. The port is the same on every machine, whichever one its gossip
// has.
type beacon struct {
	infohash manifest.Infohash
	gossip   netip.AddrPort
	machines uint16
	medium   netip.Addr // not set for none
}

var beaconGroup = netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 254}), DefaultPort)

// The encoding of a beacon: label, infohash, IPv4 address, port; then the number
// of machines and the IPv4 address of the medium, zero for none, which earlier
// versions leave out. A later one may add bytes at the end; they are ignored.
const (
	beaconSize = len(label) + 20 + 4 + 2
	groupSize  = 2 + 4
)

var errBeacon = errors.New("not the beacon of a VIVER node")

// marshal encodes b, whose address is of IPv4.
func (b beacon) marshal() []byte {
	out := make([]byte, 0, beaconSize)
	out = append(out, label...)
	out = append(out, b.infohash[:]...)
	out = append(out, b.gossip.Addr().AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, b.gossip.Port())
	out = binary.BigEndian.AppendUint16(out, b.machines)
	if !b.medium.IsValid() {
		return append(out, 0, 0, 0, 0)
	}
	return append(out, b.medium.AsSlice()...)
}

func parseBeacon(p []byte) (beacon, error) {
	rest, ok := bytes.CutPrefix(p, []byte(label))
	if !ok || len(p) < beaconSize {
		return beacon{}, errBeacon
	}
	b := beacon{
		infohash: manifest.Infohash(rest[:20]),
		gossip:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(rest[20:24])), binary.BigEndian.Uint16(rest[24:])),
	}
	if a := b.gossip.Addr(); b.gossip.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return beacon{}, errBeacon
	}
	if rest := rest[beaconSize-len(label):]; len(rest) >= groupSize {
		b.machines = binary.BigEndian.Uint16(rest)
		if medium := netip.AddrFrom4([4]byte(rest[2:6])); !medium.IsUnspecified() {
			b.medium = medium
		}
	}
	return b, nil
}

// worthJoining returns an error when the sender of a beacon shall not be joined. from
// is where the packet came from: nobody may name an address that is another's.
func (c *Cluster) worthJoining(b beacon, from netip.Addr, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch addr := b.gossip.Addr(); {
	case b.gossip == c.addr:
		return errors.New("our own")
	case addr != from:
		return fmt.Errorf("it names %s", addr)
	case c.cfg.Network.IsValid() && !c.cfg.Network.Contains(addr):
		return errors.New("not of our network")
	case !c.runsOurs(b.infohash):
		if c.groups.add(b, now) {
			c.changes.Notify()
		}
		return errors.New("of another image")
	case c.left:
		return errors.New("we have left")
	case c.aliveAt(b.gossip):
		return errors.New("known")
	case !c.beaconJoins.allow(now):
		return errors.New("more new machines than we can join")
	}
	return nil
}

// beaconPause returns how long a machine that knows so many others rests
// between two beacons: three seconds when it is alone, and in company so long
// that the whole link hears about one a second, however many machines there are.
func beaconPause(others int) time.Duration {
	if others == 0 {
		return 3 * time.Second
	}
	return max(5*time.Second, time.Duration(others+1)*time.Second)
}
