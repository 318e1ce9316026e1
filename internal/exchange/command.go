package exchange

import (
	"log/slog"
	"net/netip"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Command is something for the owner of an Exchange to do: one of the types below.
type Command any

type (
	// Send has a message sent to a peer after those before it: at once, or,
	// when Later is set, together with the next one.
	Send struct {
		To      schedule.Key
		Message wire.Message
		Later   bool
	}
	// Announce has the HAVE of a piece sent to peers, as Send does.
	Announce struct {
		Piece int
		To    []schedule.Key
		Later bool
	}
	// SendAll has all messages sent that were to be sent later.
	SendAll struct{}
	// Close ends a connection. Disconnected has to follow.
	Close struct{ To schedule.Key }
	// Offer says that NextUpload may have something for a peer.
	Offer struct{ To schedule.Key }
	// Interrupt ends the opening of the piece that NextUpload named last for a
	// peer, if it goes on yet: something is more urgent.
	Interrupt struct{ To schedule.Key }
	// Dial has an address dialled. DialEnded has to follow.
	Dial struct{ To netip.AddrPort }
	// Log says something to people.
	Log struct {
		Level slog.Level
		Text  string
		Args  []any
	}
)

// Verify is a piece whose parts are all here, to be hashed and stored. The buffers
// of its parts are the owner's again.
type Verify struct {
	Piece int
	// Parts of the piece, in order.
	Parts []Part
	// Sum is the SHA-1 of a piece that came as one block, nil of others.
	Sum []byte
	// Digests are wanted of the parts even if the piece is right.
	Digests bool
}

// Part is where a part of a piece lies.
type Part struct {
	Buffer     *[]byte
	Begin, End int // in the buffer
}
