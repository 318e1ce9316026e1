package tftp

import (
	"fmt"
	"io"
)

// flight is a file on its way: the window, and the packets in it, which may have to
// be sent again.
type flight struct {
	*window
	terms   terms
	file    io.Reader
	size    int64    // bytes of the file as promised to the client; less than zero if unknown
	packets [][]byte // by block number, modulo the window's size
	read    int64    // the last block that was read
	total   int64    // bytes of the file, when its end was read
}

func newFlight(file io.Reader, size int64, terms terms) *flight {
	return &flight{window: newWindow(terms.window), terms: terms, file: file, size: size, packets: make([][]byte, terms.window)}
}

// launch sends all that is due.
func (f *flight) launch(write func(packet []byte)) error {
	for {
		block, ok := f.due()
		if !ok {
			return nil
		}
		packet, err := f.packet(block)
		if err != nil {
			return err
		}
		write(packet)
		f.sent()
	}
}

// packet returns that of a block within the window, and reads the block if it is
// sent for the first time.
func (f *flight) packet(block int64) ([]byte, error) {
	slot := &f.packets[block%int64(len(f.packets))]
	if block <= f.read {
		return *slot, nil
	}
	if *slot == nil {
		*slot = make([]byte, header+f.terms.block)
	}
	n, ended, err := fill(f.file, (*slot)[header:])
	if ended { // so this block is shorter, which tells the client
		f.last, f.total = block, f.read*int64(f.terms.block)+int64(n)
	}
	if ended && f.size >= 0 && f.total != f.size {
		err = fmt.Errorf("the file ends after %d bytes of %d", f.total, f.size)
	}
	if err != nil {
		return nil, err
	}
	f.read = block
	*slot = (*slot)[:header+n]
	putData(*slot, uint16(block))
	return *slot, nil
}

// fill reads until b is full or the file ends. A file that breaks off may do so
// with io.ErrUnexpectedEOF, which io.ReadFull would also return at its end.
func fill(r io.Reader, b []byte) (n int, ended bool, err error) {
	for n < len(b) {
		k, err := r.Read(b[n:])
		n += k
		if err == io.EOF && n < len(b) {
			return n, true, nil
		}
		if err != nil && err != io.EOF {
			return n, false, err
		}
	}
	return n, false, nil
}

// confirmed returns how many bytes of the file the client has confirmed.
func (f *flight) confirmed() int64 {
	if f.done() {
		return f.total
	}
	return (f.base - 1) * int64(f.terms.block)
}
