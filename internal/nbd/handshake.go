package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// ErrAborted is returned by Handshake when the client only listed exports, or gave up.
var ErrAborted = errors.New("client ended the handshake")

// Handshake runs the fixed newstyle negotiation of a server that offers
// exports, and returns the one the client chose and whether it wants
// structured replies (Options.Structured); the transmission phase follows on
// the same connection. Deadlines are the caller's: it sets them on
// the connection. Nothing is read beyond the negotiation.
func Handshake(conn io.ReadWriter, exports []Export) (e *Export, structured bool, err error) {
	e, structured, err = handshake(conn, exports)
	if err != nil {
		return nil, false, fmt.Errorf("nbd handshake: %w", err)
	}
	return e, structured, nil
}

func handshake(conn io.ReadWriter, exports []Export) (_ *Export, structured bool, _ error) {
	greeting := bigEndian(protocol.NegotiationNewstyleHeader{
		OldstyleMagic:  protocol.NEGOTIATION_MAGIC_OLDSTYLE,
		OptionMagic:    protocol.NEGOTIATION_MAGIC_OPTION,
		HandshakeFlags: protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE | handshakeNoZeroes,
	})
	if _, err := conn.Write(greeting); err != nil {
		return nil, false, err
	}
	var client [4]byte
	if _, err := io.ReadFull(conn, client[:]); err != nil {
		return nil, false, err
	}
	flags := binary.BigEndian.Uint32(client[:])
	if unknown := flags &^ (clientFixedNewstyle | clientNoZeroes); unknown != 0 {
		return nil, false, fmt.Errorf("client flags %#x are unknown", unknown)
	}
	for range maxOptions {
		option, data, err := readOption(conn)
		if errors.Is(err, errTooBig) {
			if err := writeReply(conn, option, optionReply{kind: replyErrTooBig}); err != nil {
				return nil, false, err
			}
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if option == optionExportName {
			e, err := exportName(conn, string(data), exports, flags&clientNoZeroes != 0)
			return e, structured, err
		}
		if flags&clientFixedNewstyle == 0 {
			return nil, false, fmt.Errorf("option %d from a client that does not speak fixed newstyle", option)
		}
		replies, chosen, over := negotiate(option, data, exports)
		structured = structured || option == optionStructured && replies[0].kind == protocol.NEGOTIATION_TYPE_REPLY_ACK
		for _, r := range replies {
			if err := writeReply(conn, option, r); err != nil {
				return nil, false, err
			}
		}
		if over {
			return nil, false, ErrAborted
		}
		if chosen != nil {
			return chosen, structured, nil
		}
	}
	return nil, false, fmt.Errorf("more than %d options", maxOptions)
}

var errTooBig = errors.New("option data too long")

// readOption reads one option and its data. With errTooBig the data was
// skipped and the next option follows.
func readOption(r io.Reader) (option uint32, data []byte, err error) {
	var header [16]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, ErrAborted
		}
		return 0, nil, err
	}
	magic := binary.BigEndian.Uint64(header[0:])
	option = binary.BigEndian.Uint32(header[8:])
	length := binary.BigEndian.Uint32(header[12:])
	switch {
	case magic != protocol.NEGOTIATION_MAGIC_OPTION:
		return 0, nil, fmt.Errorf("found %#016x where an option begins", magic)
	case length > maxOptionLength:
		return 0, nil, fmt.Errorf("option %d announces %d bytes of data, at most %d are taken", option, length, maxOptionLength)
	case length > maxNameLength+4+2+2*maxInfoRequests:
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			return 0, nil, err
		}
		return option, nil, errTooBig
	}
	data = make([]byte, length)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, err
	}
	return option, data, nil
}

// writeReply sends one reply to an option in one write.
func writeReply(w io.Writer, option uint32, r optionReply) error {
	header := bigEndian(protocol.NegotiationReplyHeader{
		ReplyMagic: protocol.NEGOTIATION_MAGIC_REPLY,
		ID:         option,
		Type:       r.kind,
		Length:     uint32(len(r.data)),
	})
	_, err := w.Write(append(header, r.data...))
	return err
}

// exportName answers the oldest option, which has no error reply: the connection of a
// client that asks for an unknown export is closed.
func exportName(w io.Writer, name string, exports []Export, noZeroes bool) (*Export, error) {
	e := find(exports, name)
	if e == nil {
		return nil, fmt.Errorf("no export %q", name)
	}
	reply := bigEndian(uint64(e.Backend.Size()), transmissionFlags())
	if !noZeroes {
		reply = append(reply, make([]byte, 124)...)
	}
	if _, err := w.Write(reply); err != nil {
		return nil, err
	}
	return e, nil
}
