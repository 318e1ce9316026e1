package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// Bounds on the signatures of members that are checked, a second, of some 100 µs
// each.
const (
	maxChecks     = 1000
	maxChecksEach = 100 // of what one address brings, once half of them are used
)

var errTooMany = errors.New("more signatures arrive than are checked")

// checks shares out the checks of signatures among those who bring facts. One may
// have half of them, as a newcomer needs that asks the first member of a large room;
// the rest is for those who ask for little, so a flood hinders only who sends it.
type checks struct {
	// fresh reports whether facts of that member have to be checked.
	fresh func(name string, facts []byte) bool

	mu     sync.Mutex
	second time.Time // the present one
	used   int
	each   map[netip.Addr]int
}

// allow reports whether facts that an address brings may reach memberlist. Those
// that are not passed on are heard of again.
func (c *checks) allow(from netip.Addr, name string, facts []byte, now time.Time) bool {
	if !c.fresh(name, facts) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.second) >= time.Second {
		c.second, c.used, c.each = now, 0, make(map[netip.Addr]int)
	}
	if c.used >= maxChecks || c.used >= maxChecks/2 && c.each[from] >= maxChecksEach {
		return false
	}
	c.used++
	c.each[from]++
	return true
}

// fresh reports whether facts are newer than what is known of the member, so that
// admit will check their signature.
func (c *Cluster) fresh(name string, facts []byte) bool {
	said, err := parseSigned(facts)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.members[NodeID(name)]
	return !ok || said.sequence > known.sequence || known.Self && known.raw != string(facts)
}

// nodeState is a member in memberlist's exchange of states; in an alive message the
// same facts have the same names.
type nodeState struct {
	Name        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Incarnation uint32
	State       int // 0: alive
	Vsn         []byte
}

type stateHeader struct {
	Nodes        int
	UserStateLen int
	Join         bool
}

// sift reads a state, which follows the given number of bytes, and leaves out the
// living members whose facts its sender brings too many of.
func (s *stream) sift(opening int) error {
	var out bytes.Buffer
	if _, err := io.CopyN(&out, s.in, int64(opening)); err != nil {
		return err
	}
	in := codec.NewDecoder(s.in, new(codec.MsgpackHandle))
	var header stateHeader
	if err := in.Decode(&header); err != nil {
		return err
	}
	if err := header.check(); err != nil {
		return err
	}
	var kept []nodeState
	for range header.Nodes {
		var n nodeState
		if err := in.Decode(&n); err != nil {
			return err
		}
		if n.State != 0 || s.checks.allow(s.from, n.Name, n.Meta, time.Now()) {
			kept = append(kept, n)
		}
	}
	header.Nodes = len(kept)
	if err := encodeState(&out, header, kept); err != nil {
		return err
	}
	s.in = bufio.NewReader(io.MultiReader(&out, s.in))
	return nil
}

func encodeState(to io.Writer, header stateHeader, nodes []nodeState) error {
	enc := codec.NewEncoder(to, new(codec.MsgpackHandle))
	err := enc.Encode(&header)
	for i := range nodes {
		err = errors.Join(err, enc.Encode(&nodes[i]))
	}
	return err
}
