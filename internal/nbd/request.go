package nbd

import (
	"encoding/binary"
	"fmt"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Sizes of the fixed headers, in bytes.
const (
	requestSize = 28
	replySize   = 16
	chunkSize   = 20            // the header of a structured reply's chunk,
	dataSize    = chunkSize + 8 // and, before data, its offset
	headroom    = 32            // before the data of a buffer: any header, aligned
)

// Numbers of structured replies that go-nbd does not name.
const (
	magicStructured = uint32(0x668e33ef)
	chunkDone       = uint16(1 << 0)
	chunkOffsetData = uint16(1)
	chunkError      = uint16(1<<15 | 1)
)

// Commands that go-nbd does not name.
const (
	commandFlush       = uint16(3)
	commandTrim        = uint16(4)
	commandWriteZeroes = uint16(6)
)

// errno is an error as the protocol numbers it: Linux's own number.
type errno uint32

const (
	success = errno(0)
	eperm   = errno(protocol.TRANSMISSION_ERROR_EPERM)
	eio     = errno(5)
	einval  = errno(protocol.TRANSMISSION_ERROR_EINVAL)
)

// A request as it came over the wire, nothing checked but its magic.
type request struct {
	flags   uint16
	command uint16
	cookie  uint64
	offset  uint64
	length  uint32
}

// parseRequest decodes a request header. Without the magic the two sides are
// out of step in the stream, and only a new connection helps.
func parseRequest(b [requestSize]byte) (request, error) {
	if magic := binary.BigEndian.Uint32(b[0:]); magic != protocol.TRANSMISSION_MAGIC_REQUEST {
		return request{}, fmt.Errorf("found %#08x where a request begins with %#08x", magic, protocol.TRANSMISSION_MAGIC_REQUEST)
	}
	return request{
		flags:   binary.BigEndian.Uint16(b[4:]),
		command: binary.BigEndian.Uint16(b[6:]),
		cookie:  binary.BigEndian.Uint64(b[8:]),
		offset:  binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}, nil
}

// putReply encodes a simple reply header into the front of b.
func putReply(b []byte, cookie uint64, e errno) {
	binary.BigEndian.PutUint32(b[0:], protocol.TRANSMISSION_MAGIC_REPLY)
	binary.BigEndian.PutUint32(b[4:], uint32(e))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// putDataReply encodes the header of a reply to a read, for data that begins at
// b[headroom], and returns where in b the reply begins. A structured reply is
// always one chunk.
func putDataReply(b []byte, r request, structured bool) []byte {
	if !structured {
		b = b[headroom-replySize:]
		putReply(b, r.cookie, success)
		return b
	}
	b = b[headroom-dataSize:]
	putChunk(b, r.cookie, chunkOffsetData, 8+r.length)
	binary.BigEndian.PutUint64(b[chunkSize:], r.offset)
	return b
}

// putChunk encodes the header of a structured reply that is one chunk.
func putChunk(b []byte, cookie uint64, kind uint16, length uint32) {
	binary.BigEndian.PutUint32(b[0:], magicStructured)
	binary.BigEndian.PutUint16(b[4:], chunkDone)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint32(b[16:], length)
}

// errorReply is the reply that says e, or that a command without data
// succeeded. Reads of a client that negotiated structured replies get no
// other kind.
func errorReply(r request, e errno, structured bool) []byte {
	if !structured || r.command != protocol.TRANSMISSION_TYPE_REQUEST_READ {
		b := make([]byte, replySize)
		putReply(b, r.cookie, e)
		return b
	}
	b := make([]byte, chunkSize+6) // the number, and no text
	putChunk(b, r.cookie, chunkError, 6)
	binary.BigEndian.PutUint32(b[chunkSize:], uint32(e))
	return b
}

// action is what becomes of a request.
type action int

const (
	answer     action = iota // reply at once with the errno
	read                     // ask the backend
	discard                  // skip the payload that follows, then reply
	disconnect               // answer what is in flight, then end
	hangUp                   // nothing sensible can follow: end now
)

// judge decides about a request to a read-only volume of the given size,
// before anything is allocated for it.
func judge(r request, size int64) (action, errno) {
	switch r.command {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		switch {
		case r.flags != 0: // none of those that go with a read was offered
			return answer, einval
		case r.length == 0 || r.length > MaxRequestLength:
			return answer, einval
		case r.offset > uint64(size) || uint64(r.length) > uint64(size)-r.offset:
			return answer, einval
		}
		return read, success
	case protocol.TRANSMISSION_TYPE_REQUEST_DISC:
		return disconnect, success
	case commandFlush: // nothing is ever unwritten
		return answer, success
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		if r.length > MaxRequestLength {
			return hangUp, eperm
		}
		return discard, eperm
	case commandTrim, commandWriteZeroes:
		return answer, eperm
	}
	return answer, einval
}
