package tftp

// Repeats of a file's blocks that a client may cause by its confirmations: so many
// for each block that it has confirmed, and some at the beginning. Whoever loses
// more gets the rest at the pace of time-outs.
const (
	repeatsPerBlock = 3
	repeatsFree     = 64
)

// window says which block of a file is to be sent next (RFC 7440). It knows
// neither bytes nor time. Blocks count from 1 and do not wrap here.
//
// A confirmation of a block within the window says that the next one was lost, or
// came in disorder, and that the client expects a whole window from there. A
// client may send one for every packet that it does not expect. So a confirmation
// of what is confirmed already may be such a report, about the window's first
// block, or an echo of packets that were sent twice. If each echo made us send
// again, each block would be sent twice up to the end of the file (RFC 1123,
// section 4.2.3.1, calls that the Sorcerer's Apprentice Syndrome). Echoes of what is
// sent a second time arrive while that window or the next one is on its way. So
// until both are confirmed, a repeated confirmation means nothing, and a
// lost block waits for the time-out. With windows of one block it never means
// anything.
type window struct {
	size int   // blocks
	base int64 // the first block that is not confirmed
	next int64 // the block to send next
	last int64 // the file's last block; 0 while it is unknown
	// echoed is the first block with which repeated confirmations count again.
	echoed  int64
	repeats int64
	held    bool // nothing is sent before the time-out
}

func newWindow(size int) *window { return &window{size: size, base: 1, next: 1} }

// due returns the block to send now, if there is one.
func (w *window) due() (block int64, ok bool) {
	if w.held || w.next >= w.base+int64(w.size) || w.last != 0 && w.next > w.last {
		return 0, false
	}
	return w.next, true
}

// sent notes that the block that was due is on its way.
func (w *window) sent() { w.next++ }

// done tells whether the last block is confirmed.
func (w *window) done() bool { return w.last != 0 && w.base > w.last }

// confirm takes the number in an ACK, which wraps at 16 bits, and reports whether
// it is news. A number that was not sent yet is ignored.
func (w *window) confirm(number uint16) (news bool) {
	blocks := int64(number - uint16(w.base-1)) // confirmed by this one
	switch {
	case blocks > w.next-w.base:
		return false
	case blocks == 0:
		if w.size > 1 && w.base >= w.echoed {
			w.repeat()
		}
		return false
	}
	w.base += blocks
	w.held = false
	if w.base < w.next {
		w.repeat()
	}
	return true
}

// repeat goes back to the first block that is not confirmed, because the client
// wants it.
func (w *window) repeat() {
	again := w.next - w.base
	if w.repeats+again > repeatsFree+repeatsPerBlock*(w.base-1) {
		w.held = true
		return
	}
	w.repeats += again
	w.rewind()
}

// expire goes back likewise, because the time-out is over.
func (w *window) expire() {
	w.held = false
	w.rewind()
}

func (w *window) rewind() {
	w.next = w.base
	w.echoed = w.base + 2*int64(w.size)
}
