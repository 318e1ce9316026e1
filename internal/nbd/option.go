package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Negotiation numbers that go-nbd does not name.
const (
	handshakeNoZeroes = uint16(1 << 1)

	clientFixedNewstyle = uint32(1 << 0)
	clientNoZeroes      = uint32(1 << 1)

	optionExportName = uint32(1)
	optionStructured = uint32(8)

	replyErrInvalid = uint32(3 | 1<<31)
	replyErrTooBig  = uint32(9 | 1<<31)
)

// Limits of a handshake. Names are at most 4096 bytes by the protocol; the
// rest is generous for every known client.
const (
	maxNameLength   = 4096
	maxOptionLength = 64 << 10 // longer data ends the handshake unread
	maxInfoRequests = 64
	maxOptions      = 64 // per handshake
)

// An Export is a volume under a name.
type Export struct {
	// Name clients ask for. The empty name stands for the first export.
	Name string
	// Description for people, shown by nbdinfo.
	Description string
	// Backend that is read.
	Backend Backend
	// PreferredBlock is the read size that suits the backend, in bytes: a
	// power of two from 512 to 32 MiB. Default 4096.
	PreferredBlock uint32
}

// find returns the export a client asks for, or nil.
func find(exports []Export, name string) *Export {
	for i := range exports {
		if exports[i].Name == name || (name == "" && i == 0) {
			return &exports[i]
		}
	}
	return nil
}

// infoRequest is the data of OPT_INFO and OPT_GO.
type infoRequest struct {
	name  string
	infos []uint16 // kinds of information asked for
}

var errInfoRequest = errors.New("malformed export information request")

// parseInfoRequest decodes the data of OPT_INFO and OPT_GO.
func parseInfoRequest(data []byte) (infoRequest, error) {
	if len(data) < 6 {
		return infoRequest{}, fmt.Errorf("%w: %d bytes, at least 6 expected", errInfoRequest, len(data))
	}
	length := uint64(binary.BigEndian.Uint32(data))
	rest := data[4:]
	if length > maxNameLength || length+2 > uint64(len(rest)) {
		return infoRequest{}, fmt.Errorf("%w: a name of %d bytes in %d bytes of data", errInfoRequest, length, len(data))
	}
	r := infoRequest{name: string(rest[:length])}
	rest = rest[length:]
	count := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	if count > maxInfoRequests || len(rest) != 2*count {
		return infoRequest{}, fmt.Errorf("%w: %d kinds announced, %d bytes follow", errInfoRequest, count, len(rest))
	}
	for ; len(rest) > 0; rest = rest[2:] {
		r.infos = append(r.infos, binary.BigEndian.Uint16(rest))
	}
	return r, nil
}

// optionReply is one reply to an option.
type optionReply struct {
	kind uint32
	data []byte
}

// describe returns the information replies for an export: its size and block
// sizes always, name and description when asked for.
func describe(e *Export, infos []uint16) []optionReply {
	const always = 0xffff // not a kind a client can ask for usefully
	preferred := e.PreferredBlock
	if preferred == 0 {
		preferred = 4096
	}
	size := uint64(e.Backend.Size())
	kinds := []struct {
		kind, wanted uint16
		fields       []any
	}{
		{protocol.NEGOTIATION_TYPE_INFO_EXPORT, always, []any{size, transmissionFlags()}},
		{protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE, always, []any{uint32(1), preferred, uint32(MaxRequestLength)}},
		{protocol.NEGOTIATION_TYPE_INFO_NAME, protocol.NEGOTIATION_TYPE_INFO_NAME, []any{[]byte(e.Name)}},
		{protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION, protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION, []any{[]byte(e.Description)}},
	}
	asked := map[uint16]bool{always: true}
	for _, i := range infos {
		asked[i] = true
	}
	var replies []optionReply
	for _, k := range kinds {
		if asked[k.wanted] {
			replies = append(replies, optionReply{protocol.NEGOTIATION_TYPE_REPLY_INFO, bigEndian(append([]any{k.kind}, k.fields...)...)})
		}
	}
	return replies
}

// transmissionFlags is what every export offers.
func transmissionFlags() uint16 {
	return FlagHasFlags | FlagReadOnly | FlagSendFlush | FlagCanMultiConn
}

// negotiate answers one option other than EXPORT_NAME. The export returned is
// the one to serve from now on; over says that the client wants no more.
func negotiate(option uint32, data []byte, exports []Export) (replies []optionReply, chosen *Export, over bool) {
	ack := optionReply{kind: protocol.NEGOTIATION_TYPE_REPLY_ACK}
	switch option {
	case protocol.NEGOTIATION_ID_OPTION_ABORT:
		return []optionReply{ack}, nil, true
	case optionStructured:
		if len(data) != 0 {
			return []optionReply{{kind: replyErrInvalid, data: []byte("a request for structured replies carries no data")}}, nil, false
		}
		return []optionReply{ack}, nil, false
	case protocol.NEGOTIATION_ID_OPTION_LIST:
		if len(data) != 0 {
			return []optionReply{{kind: replyErrInvalid, data: []byte("a list request carries no data")}}, nil, false
		}
		for _, e := range exports {
			replies = append(replies, optionReply{protocol.NEGOTIATION_TYPE_REPLY_SERVER, bigEndian(uint32(len(e.Name)), []byte(e.Name), []byte(e.Description))})
		}
		return append(replies, ack), nil, false
	case protocol.NEGOTIATION_ID_OPTION_INFO, protocol.NEGOTIATION_ID_OPTION_GO:
		request, err := parseInfoRequest(data)
		if err != nil {
			return []optionReply{{kind: replyErrInvalid, data: []byte(err.Error())}}, nil, false
		}
		export := find(exports, request.name)
		if export == nil {
			return []optionReply{{kind: protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, data: []byte("no such export")}}, nil, false
		}
		replies = append(describe(export, request.infos), ack)
		if option == protocol.NEGOTIATION_ID_OPTION_GO {
			return replies, export, false
		}
		return replies, nil, false
	}
	return []optionReply{{kind: protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED}}, nil, false
}

// bigEndian lays fixed-size values out one after another in network order.
func bigEndian(fields ...any) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		binary.Write(&b, binary.BigEndian, f) // cannot fail: a buffer, fixed sizes
	}
	return b.Bytes()
}
