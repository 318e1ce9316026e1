package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/anacrolix/torrent/bencode"

	"viver.lan/internal/identity"
	"viver.lan/internal/metainfo"
)

// The numbers under which we want to receive extension messages (BEP 10).
const (
	IDHandshake = 0
	IDPex       = 1
	IDDontHave  = 2
	IDUrgent    = 3
	IDProof     = 4
	IDChallenge = 5
	IDAnswer    = 6
	// IDRecordRequest and IDRecord are numbers of viver_record_request and viver_record.
	IDRecordRequest = 7
	IDRecord        = 8
)

// Hello is the extension handshake (BEP 10) with our own additions.
type Hello struct {
	// M maps extension names to the numbers the sender wants to receive.
	M struct {
		Pex      uint8 `bencode:"ut_pex,omitempty"`      // BEP 11
		DontHave uint8 `bencode:"lt_donthave,omitempty"` // BEP 54
		// Urgent hints that somebody waits for a piece: its requests go first.
		Urgent uint8 `bencode:"viver_urgent,omitempty"`
		// Challenge and Answer are proofs of copies.
		Challenge uint8 `bencode:"viver_challenge,omitempty"`
		Answer    uint8 `bencode:"viver_answer,omitempty"`
		// Proof takes the sender's signature of the receiver's nonce.
		Proof uint8 `bencode:"viver_proof,omitempty"`
		// RecordRequest asks for the receiver's boot record, Record carries one; an
		// empty one says that there is none.
		RecordRequest uint8 `bencode:"viver_record_request,omitempty"`
		Record        uint8 `bencode:"viver_record,omitempty"`
	} `bencode:"m"`
	Client string `bencode:"v,omitempty"`
	// Queue is how many requests the sender keeps waiting.
	Queue int64 `bencode:"reqq,omitempty"`
	// Port the sender listens on.
	Port uint16 `bencode:"p,omitempty"`
	// Block is the largest request in bytes the sender answers.
	Block int64 `bencode:"viver_block,omitempty"`
	// Origin is 1 when the sender says that it is the first node.
	Origin uint8 `bencode:"viver_origin,omitempty"`
	// Budget is how many bytes of pieces the sender claims to keep: nothing but
	// a proof shows what it does keep.
	Budget int64 `bencode:"viver_budget,omitempty"`
	// Key is the public key that the sender says is its own, Nonce what its
	// holder wants signed by the receiver. See CanProve.
	Key   []byte `bencode:"viver_key,omitempty"`
	Nonce []byte `bencode:"viver_nonce,omitempty"`
}

// CanProve reports whether the sender has offered to prove its key, and the
// receiver's.
func (h Hello) CanProve() bool {
	return len(h.Key) == identity.PublicSize && len(h.Nonce) == NonceSize && h.M.Proof != 0
}

// Payload returns the payload of the extension handshake.
func (h Hello) Payload() []byte { return bencode.MustMarshal(h) }

// ParseHello reads an extension handshake's payload.
func ParseHello(payload []byte) (Hello, error) {
	var h Hello
	if err := metainfo.Unmarshal(payload, &h); err != nil {
		return Hello{}, fmt.Errorf("extension handshake: %w", err)
	}
	return h, nil
}

// Extension returns an extension message under the receiver's number id.
func Extension(id byte, payload []byte) Message {
	return Message{Type: Extended, ExtendedID: id, Payload: payload}
}

// PieceHint returns the payload of lt_donthave and viver_urgent.
func PieceHint(piece int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(piece)) }

// ParsePieceHint reads the payload of lt_donthave and viver_urgent.
func ParsePieceHint(payload []byte, pieces int) (int, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("piece hint of %d bytes, want 4", len(payload))
	}
	i := binary.BigEndian.Uint32(payload)
	if int64(i) >= int64(pieces) {
		return 0, fmt.Errorf("piece hint for piece %d, there are %d", i, pieces)
	}
	return int(i), nil
}

// Pex is a peer exchange message (BEP 11).
type Pex struct {
	Added, Dropped []netip.AddrPort
}

// maxPex bounds the addresses taken from one message.
const maxPex = 200

type rawPex struct {
	Added    []byte `bencode:"added"`
	Flags    []byte `bencode:"added.f"`
	Added6   []byte `bencode:"added6,omitempty"`
	Dropped  []byte `bencode:"dropped"`
	Dropped6 []byte `bencode:"dropped6,omitempty"`
}

// Payload returns the payload of the message.
func (p Pex) Payload() []byte {
	raw := rawPex{Added: []byte{}, Flags: []byte{}, Dropped: []byte{}}
	for _, a := range p.Added {
		if a.Addr().Unmap().Is4() {
			raw.Flags = append(raw.Flags, 0)
		}
	}
	raw.Added, raw.Added6 = appendCompact(raw.Added, raw.Added6, p.Added)
	raw.Dropped, raw.Dropped6 = appendCompact(raw.Dropped, raw.Dropped6, p.Dropped)
	return bencode.MustMarshal(raw)
}

func appendCompact(v4, v6 []byte, addrs []netip.AddrPort) ([]byte, []byte) {
	for _, a := range addrs {
		if ip := a.Addr().Unmap(); ip.Is4() {
			v4 = binary.BigEndian.AppendUint16(append(v4, ip.AsSlice()...), a.Port())
		} else {
			v6 = binary.BigEndian.AppendUint16(append(v6, ip.AsSlice()...), a.Port())
		}
	}
	return v4, v6
}

// ParsePex reads a peer exchange payload.
func ParsePex(payload []byte) (Pex, error) {
	var raw rawPex
	if err := metainfo.Unmarshal(payload, &raw); err != nil {
		return Pex{}, fmt.Errorf("peer exchange: %w", err)
	}
	var p Pex
	p.Added = append(parseCompact(raw.Added, 4), parseCompact(raw.Added6, 16)...)
	p.Dropped = append(parseCompact(raw.Dropped, 4), parseCompact(raw.Dropped6, 16)...)
	return p, nil
}

func parseCompact(b []byte, ipLen int) []netip.AddrPort {
	var out []netip.AddrPort
	for ; len(b) >= ipLen+2 && len(out) < maxPex; b = b[ipLen+2:] {
		ip, _ := netip.AddrFromSlice(b[:ipLen])
		out = append(out, netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[ipLen:])))
	}
	return out
}
