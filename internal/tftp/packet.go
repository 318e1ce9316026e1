package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Opcodes (RFC 1350, section 5; RFC 2347).
const (
	opRead      = 1
	opWrite     = 2
	opData      = 3
	opAck       = 4
	opError     = 5
	opOptionAck = 6
)

// header is how many bytes an opcode and a block number take.
const header = 4

// maxText bounds an error's text on its way to a client, in bytes: old firmware
// shows it on one line.
const maxText = 128

// Code is the reason in an ERROR packet (RFC 1350, appendix).
type Code uint16

// The codes that this server sends.
const (
	Other            Code = 0 // the text says more
	FileNotFound     Code = 1
	AccessViolation  Code = 2
	IllegalOperation Code = 4
)

// Error is what an ERROR packet says.
type Error struct {
	Code Code
	Text string
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// option is a word of a client and its value (RFC 2347).
type option struct{ name, value string }

// request is what a client asks for.
type request struct {
	write   bool
	name    string
	mode    string   // in lower case
	options []option // names in lower case
}

var errMalformed = errors.New("malformed packet")

// parseRequest decodes what comes to the server's port. What is no request is an
// error.
func parseRequest(b []byte) (request, error) {
	if len(b) < header {
		return request{}, errMalformed
	}
	op := binary.BigEndian.Uint16(b)
	if op != opRead && op != opWrite {
		return request{}, fmt.Errorf("%w: opcode %d", errMalformed, op)
	}
	// Each word ends with a zero byte, so behind the last one is an empty rest.
	words := strings.Split(string(b[2:]), "\x00")
	words = words[:len(words)-1]
	if len(words) < 2 {
		return request{}, errMalformed
	}
	r := request{write: op == opWrite, name: words[0], mode: strings.ToLower(words[1])}
	for rest := words[2:]; len(rest) >= 2; rest = rest[2:] {
		r.options = append(r.options, option{strings.ToLower(rest[0]), rest[1]})
	}
	return r, nil
}

// reply is what comes to a transfer's port: the number of a block that is
// confirmed, or an error.
type reply struct {
	block uint16
	fault *Error
}

// parseReply decodes what a client sends during a transfer.
func parseReply(b []byte) (reply, error) {
	if len(b) < header {
		return reply{}, errMalformed
	}
	number := binary.BigEndian.Uint16(b[2:])
	switch op := binary.BigEndian.Uint16(b); op {
	case opAck:
		return reply{block: number}, nil
	case opError:
		text, _, _ := strings.Cut(string(b[header:]), "\x00")
		return reply{fault: &Error{Code(number), clip(text)}}, nil
	default:
		return reply{}, fmt.Errorf("%w: opcode %d", errMalformed, op)
	}
}

// putData writes the head of a DATA packet.
func putData(b []byte, block uint16) {
	binary.BigEndian.PutUint16(b, opData)
	binary.BigEndian.PutUint16(b[2:], block)
}

// optionAck makes an OACK packet.
func optionAck(options []option) []byte {
	b := binary.BigEndian.AppendUint16(nil, opOptionAck)
	for _, o := range options {
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}

// errorPacket makes an ERROR packet. An error without a code of its own has the
// code Other.
func errorPacket(err error) []byte {
	code := Other
	if e := (*Error)(nil); errors.As(err, &e) {
		code = e.Code
	}
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(append(b, clip(strings.ReplaceAll(err.Error(), "\x00", ""))...), 0)
}

func clip(text string) string { return text[:min(len(text), maxText)] }
