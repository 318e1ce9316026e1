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

	"viver.lan/internal/identity"
)

// Bounds on the signatures of members that are verified, a second, at some 100 µs
// each.
const (
	maxSignatures     = 1000
	maxSignaturesEach = 100 // of what one address sends, once half of them are used
)

var errTooMany = errors.New("more signatures arrive than are verified")

// signatureBudget divides the signatures that are verified among those who send
// members' facts. One sender may have half of them, as a newcomer needs that asks the
// first member of a large room; the rest is for those who ask for little, so a flood
// hinders only who sends it.
type signatureBudget struct {
	// needed reports whether facts of that member cost a verification.
	needed func(name string, facts []byte) bool

	mu       sync.Mutex
	verified perSecond
}

// allow reports whether facts that an address sends may reach memberlist. Those
// that are not passed on are heard of again.
func (b *signatureBudget) allow(from netip.Addr, name string, facts []byte, now time.Time) bool {
	if !b.needed(name, facts) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verified.advance(now)
	if v := &b.verified; v.all >= maxSignatures || v.all >= maxSignatures/2 && v.by[from] >= maxSignaturesEach {
		return false
	}
	b.verified.add(from)
	return true
}

// verificationNeeded reports whether facts are newer than what is known of the
// member, so that admit will verify their signature.
func (c *Cluster) verificationNeeded(name string, facts []byte) bool {
	s, err := parseSigned(facts)
	id, iderr := identity.ParseID(name)
	if err != nil || iderr != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.members[id]
	return !ok || s.sequence > known.sequence || known.Self && known.raw != string(facts)
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

// filterState reads a state whose header inspectHeader has passed, behind the given
// number of bytes, and leaves out the living members for whose facts its sender has no budget left.
func (s *stream) filterState(prefix int) error {
	var out bytes.Buffer
	if _, err := io.CopyN(&out, s.in, int64(prefix)); err != nil {
		return err
	}
	in := codec.NewDecoder(s.in, new(codec.MsgpackHandle))
	var header stateHeader
	if err := in.Decode(&header); err != nil {
		return err
	}
	var passed []nodeState
	for range header.Nodes {
		var n nodeState
		if err := in.Decode(&n); err != nil {
			return err
		}
		if n.State != 0 || s.budget.allow(s.from, n.Name, n.Meta, time.Now()) {
			passed = append(passed, n)
		}
	}
	header.Nodes = len(passed)
	if err := encodeState(&out, header, passed); err != nil {
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
