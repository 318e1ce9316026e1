package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"viver.lan/internal/manifest"
	"viver.lan/internal/sshkey"
)

// Meta is what a machine tells about itself.
type Meta struct {
	Hostname  string            `json:"hostname"`
	SwarmPort uint16            `json:"swarm_port"` // TCP, of its block daemon
	HTTPPort  uint16            `json:"http_port"`  // TCP, of its agent; 0: none
	First     bool              `json:"first"`      // it holds the medium
	Infohash  manifest.Infohash `json:"infohash"`   // of the image it runs
	Budget    int64             `json:"budget"`     // bytes of pieces it keeps for the others
	HostKey   sshkey.Key        `json:"host_key"`   // of its SSH server; zero: none, or not known yet

	leaving bool // it is about to say goodbye
}

// The encoding of Meta: version, flags, two ports, infohash, length and bytes
// of the host name, eight bytes of budget, the SSH host key. A later version may
// add bytes at the end; they are passed over.
const (
	metaVersion = 1
	metaFixed   = 1 + 1 + 2 + 2 + 20 + 1
	metaBudget  = 8
	metaKey     = len(sshkey.Key{})
	flagFirst   = 1 << 0
	flagLeaving = 1 << 1
	maxHostname = 64 // Linux allows no more (HOST_NAME_MAX)
)

var errMeta = errors.New("not the facts of a VIVER node")

func (m Meta) check() error {
	if len(m.Hostname) > maxHostname || !printable(m.Hostname) {
		return fmt.Errorf("host name %q: want at most %d printable ASCII characters", m.Hostname, maxHostname)
	}
	if m.Budget < 0 {
		return fmt.Errorf("budget of %d bytes: want none or more", m.Budget)
	}
	return nil
}

// marshal encodes m, which must have passed check.
func (m Meta) marshal() []byte {
	var flags byte
	if m.First {
		flags |= flagFirst
	}
	if m.leaving {
		flags |= flagLeaving
	}
	b := make([]byte, 0, metaFixed+len(m.Hostname)+metaBudget+metaKey)
	b = append(b, metaVersion, flags)
	b = binary.BigEndian.AppendUint16(b, m.SwarmPort)
	b = binary.BigEndian.AppendUint16(b, m.HTTPPort)
	b = append(b, m.Infohash[:]...)
	b = append(b, byte(len(m.Hostname)))
	b = append(b, m.Hostname...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Budget))
	return append(b, m.HostKey[:]...)
}

func parseMeta(b []byte) (Meta, error) {
	if len(b) < metaFixed || b[0] != metaVersion {
		return Meta{}, errMeta
	}
	name := metaFixed + int(b[metaFixed-1]) // where it ends
	if len(b) == name+metaBudget {
		b = append(b[:len(b):len(b)], make([]byte, metaKey)...) // of an earlier version
	}
	if len(b) < name+metaBudget+metaKey {
		return Meta{}, errMeta
	}
	m := Meta{
		First:     b[1]&flagFirst != 0,
		leaving:   b[1]&flagLeaving != 0,
		SwarmPort: binary.BigEndian.Uint16(b[2:]),
		HTTPPort:  binary.BigEndian.Uint16(b[4:]),
		Infohash:  manifest.Infohash(b[6:26]),
		Hostname:  string(b[metaFixed:name]),
		Budget:    int64(binary.BigEndian.Uint64(b[name:])),
		HostKey:   sshkey.Key(b[name+metaBudget:]),
	}
	if err := m.check(); err != nil {
		return Meta{}, errMeta
	}
	return m, nil
}

// validName reports whether a name from the wire may be a NodeID.
func validName(s string) bool { return s != "" && len(s) <= 64 && printable(s) }

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
