package boothost

import (
	"errors"
	"io"
	"time"
)

// The number of concurrent transfers is bounded, so a client must not keep one open
// for ever by reading a few bytes before each deadline. Over the whole file a client
// has to reach a lowest rate; any transfer ends after size/rate + grace. Honest
// clients are far from that: 64 machines that share 100 Mbit/s get 190 KiB/s each,
// and 19 KiB/s on a hub of 10 Mbit/s.
const (
	httpSlowest = 16 << 10 // bytes per second
	// TFTP waits for each block's answer: with blocks of 1024 bytes, 100 ms in
	// full queues and a twentieth of the packets lost it moves 7 KiB/s.
	tftpSlowest = 4 << 10
	slowGrace   = time.Minute // firmware gives up sooner
)

// slowness is how slowly a client may take a file.
type slowness struct {
	rate  int64         // bytes per second, on average
	grace time.Duration // how much later than by the rate it may be
	now   func() time.Time
}

// errTooSlow becomes the client's error message.
var errTooSlow = errors.New("too slow")

// pacedReader is a file on its way to a client. It knows until when the client
// has to have taken what was read so far. The time that the file itself takes,
// whose pieces may have to come over the network first, is not the client's.
type pacedReader struct {
	io.ReadSeeker
	limit slowness
	due   time.Time
	n     int64 // bytes read
	err   error // what went wrong at the source
}

func newPacedReader(file io.ReadSeeker, limit slowness) *pacedReader {
	return &pacedReader{ReadSeeker: file, limit: limit, due: limit.now().Add(limit.grace)}
}

func (p *pacedReader) Read(b []byte) (int, error) {
	begin := p.limit.now()
	n, err := p.ReadSeeker.Read(b)
	p.due = p.due.Add(p.limit.now().Sub(begin) + time.Duration(n)*time.Second/time.Duration(p.limit.rate))
	p.n += int64(n)
	if err != nil && err != io.EOF {
		p.err = err
	}
	return n, err
}

// late tells whether the client should have taken all of it by now.
func (p *pacedReader) late() bool { return p.limit.now().After(p.due) }
