package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/roles"
	"viver.lan/internal/sshkey"
)

// Meta is what a machine tells about itself. Nobody else can tell it: it is
// signed with the machine's key.
type Meta struct {
	Hostname  string
	MAC       ether.MAC         // of its boot card
	SwarmPort uint16            // TCP, of its block daemon
	HTTPPort  uint16            // TCP, of its agent; 0: none
	First     bool              // it says that it holds the medium
	Infohash  manifest.Infohash // of the image it runs
	Budget    int64             // bytes of pieces it keeps for the others
	HostKey   sshkey.Key        // of its SSH server; zero: none, or not known yet
	// Network is the name of the network it is on, see network.go; "" when it
	// knows none yet.
	Network string
	// Memory is in bytes, of which whole MiB are told.
	Memory uint64
	CPUs   int
	// Features are some of roles.Features, in their order.
	Features []string
	// TakesRoles is set when something runs on it that carries out roles, and Claims
	// are those that it holds.
	TakesRoles bool
	Claims     []roles.Name
	// Live says which live layer it has.
	Live livelayer.Mark
	// Keeps says of which other image of its network it keeps pieces, beside those of the
	// one that it runs.
	Keeps ImageMark

	leaving bool // it is about to say goodbye
	// announced: its machine is about to be switched off. Until then it is a member as any
	// other, because it reads its root disk from the others to its end.
	announced bool
}

// ImageMark is the beginning of an image's infohash, by which members say in few bytes
// which one they keep. The zero value means none.
type ImageMark [8]byte

// MarkOf returns the mark of an image.
func MarkOf(image manifest.Infohash) ImageMark { return ImageMark(image[:]) }

func (m ImageMark) String() string { return livelayer.Mark(m).String() }

// bootsMachines reports whether the machine has the medium and boots others from it:
// a volume with a directory of its own has all pieces, too, and no agent.
func (m Meta) bootsMachines() bool { return m.First && m.HTTPPort != 0 }

// The encoding of Meta: flags, two ports, infohash, budget, SSH host key, MAC
// address, then host name and network name, each after its length, the mark of the live
// layer, what appendAbility appends, and the mark of the image that it keeps. With the signature it is 512 bytes at most, of
// which some are left for later fields.
const (
	metaFixed   = 1 + 2 + 2 + 20 + 8 + len(sshkey.Key{}) + len(ether.MAC{})
	flagFirst   = 1 << 0
	flagLeaving = 1 << 1
	flagRoles   = 1 << 2
	flagOff     = 1 << 3
	maxHostname = 64 // Linux allows no more (HOST_NAME_MAX)
	maxNetwork  = 32
)

var errMeta = errors.New("not the facts of a VIVER node")

// state is that of the member with these facts, which memberlist calls alive or
// dead. What was said before a goodbye has lower numbers than the goodbye.
func (m Meta) state(listed State) State {
	if m.leaving || m.announced && listed == Dead {
		return Left
	}
	return listed
}

func (m Meta) check() error {
	switch {
	case len(m.Hostname) > maxHostname || !printable(m.Hostname):
		return fmt.Errorf("host name %q: want at most %d printable ASCII characters", m.Hostname, maxHostname)
	case len(m.Network) > maxNetwork || !printable(m.Network):
		return fmt.Errorf("network name %q: want at most %d printable ASCII characters", m.Network, maxNetwork)
	case m.Budget < 0:
		return fmt.Errorf("budget of %d bytes: want none or more", m.Budget)
	}
	return m.checkAbility()
}

// append appends the encoding of m, which must have passed check.
func (m Meta) append(b []byte) []byte {
	var flags byte
	if m.First {
		flags |= flagFirst
	}
	if m.leaving {
		flags |= flagLeaving
	}
	if m.TakesRoles {
		flags |= flagRoles
	}
	if m.announced {
		flags |= flagOff
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint16(b, m.SwarmPort)
	b = binary.BigEndian.AppendUint16(b, m.HTTPPort)
	b = append(b, m.Infohash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Budget))
	b = append(b, m.HostKey[:]...)
	b = append(b, m.MAC[:]...)
	for _, text := range []string{m.Hostname, m.Network} {
		b = append(append(b, byte(len(text))), text...)
	}
	return append(m.appendAbility(append(b, m.Live[:]...)), m.Keeps[:]...)
}

// parseMeta reads what append wrote. What follows is of a later version and
// ignored.
func parseMeta(b []byte) (m Meta, err error) {
	if len(b) < metaFixed {
		return m, errMeta
	}
	m = Meta{
		First: b[0]&flagFirst != 0, leaving: b[0]&flagLeaving != 0, TakesRoles: b[0]&flagRoles != 0, announced: b[0]&flagOff != 0,
		SwarmPort: binary.BigEndian.Uint16(b[1:]), HTTPPort: binary.BigEndian.Uint16(b[3:]),
		Infohash: manifest.Infohash(b[5:25]), Budget: int64(binary.BigEndian.Uint64(b[25:])), HostKey: sshkey.Key(b[33:65]), MAC: ether.MAC(b[65:metaFixed]),
	}
	b = b[metaFixed:]
	for _, text := range []*string{&m.Hostname, &m.Network} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return Meta{}, errMeta
		}
		end := 1 + int(b[0])
		*text, b = string(b[1:end]), b[end:]
	}
	if len(b) > 0 { // an earlier version wrote no more
		if len(b) < len(m.Live) {
			return Meta{}, errMeta
		}
		m.Live, b = livelayer.Mark(b), b[len(m.Live):]
	}
	b, err = m.parseAbility(b)
	if err == nil && len(b) > 0 { // an earlier version wrote no more
		if len(b) < len(m.Keeps) {
			return Meta{}, errMeta
		}
		m.Keeps = ImageMark(b)
	}
	if err != nil || m.check() != nil {
		return Meta{}, errMeta
	}
	return m, nil
}

// signed is Meta as it travels: with the key of the machine that says it, the
// number by which newer facts are told from older ones, and the signature of
// both, the facts and the address at which the machine takes part.
type signed struct {
	Meta
	public   identity.Public
	sequence uint64
	raw      []byte // what parseSigned read
}

const (
	signedVersion                  = 2
	signedHead                     = 1 + identity.SignatureSize // version, signature
	signedFixed                    = signedHead + identity.PublicSize + 8
	metaPurpose   identity.Purpose = "viver member, version 2"
)

var errSignature = errors.New("its facts are not signed by the key that its ID follows from")

// sign encodes the facts of the machine with that key and address.
func (m Meta) sign(key identity.Key, addr netip.AddrPort, sequence uint64) []byte {
	public := key.Public()
	body := m.append(binary.BigEndian.AppendUint64(append([]byte(nil), public[:]...), sequence))
	b := append([]byte{signedVersion}, key.Sign(metaPurpose, addrBytes(addr), body)...)
	return append(b, body...)
}

func addrBytes(addr netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(addr.Addr().Unmap().AsSlice(), addr.Port())
}

// parseSigned reads facts without looking at who signed them.
func parseSigned(b []byte) (s signed, err error) {
	if len(b) < signedFixed || b[0] != signedVersion {
		return s, errMeta
	}
	s.raw = b
	s.public = identity.Public(b[signedHead:])
	s.sequence = binary.BigEndian.Uint64(b[signedHead+identity.PublicSize:])
	s.Meta, err = parseMeta(b[signedFixed:])
	return s, err
}

// signedBy reports whether the facts are signed with the key of the member of that
// ID, for that address.
func (s signed) signedBy(id identity.ID, addr netip.AddrPort) bool {
	return s.public.ID() == id && s.public.Verify(metaPurpose, s.raw[1:signedHead], addrBytes(addr), s.raw[signedHead:])
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
