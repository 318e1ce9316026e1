package tftp

import (
	"strconv"
	"time"
)

// What RFC 1350 says where nothing is negotiated, and the bounds of RFC 2348, 2349
// and 7440.
const (
	defaultBlock  = 512 // bytes
	smallestBlock = 8
	largestBlock  = 65464
	largestWindow = 65535 // blocks
	// longestTimeout is the longest time-out that we agree to, in seconds. A client
	// that is gone keeps its place for a multiple of it; one that asks for more
	// does without.
	longestTimeout = 5
	// longestWait bounds waits that become longer.
	longestWait = 8 * time.Second
)

// terms are what both ends of a transfer keep to.
type terms struct {
	block   int // bytes
	window  int // blocks until a confirmation
	timeout time.Duration
	agreed  []option // to be confirmed to the client; none if there are none
}

// wait is how long to wait for an answer when packets were sent again so many
// times. It doubles (RFC 1123, section 4.2.3.2): a client may repeat its
// confirmation only when it has heard nothing for some seconds, which it does
// while we are silent. atftp 0.8 and its windows are such a client.
func (t terms) wait(again int) time.Duration {
	return max(t.timeout, min(t.timeout<<min(again, 10), longestWait))
}

// negotiate answers the options of a request for a file of so many bytes, less than
// zero if nobody knows. An option that is unknown, is no number, or is out of
// bounds is left out (RFC 2347); of one that is there twice the first counts.
func (l *Limits) negotiate(asked []option, size int64) terms {
	t := terms{block: defaultBlock, window: 1, timeout: l.Timeout}
	seen := make(map[string]bool)
	for _, o := range asked {
		if seen[o.name] {
			continue
		}
		seen[o.name] = true
		n, err := strconv.ParseUint(o.value, 10, 63)
		if err != nil {
			continue
		}
		if answer, ok := l.answer(&t, o.name, int64(n), size); ok {
			t.agreed = append(t.agreed, option{o.name, strconv.FormatInt(answer, 10)})
		}
	}
	return t
}

// answer decides one option, and sets what it is about.
func (l *Limits) answer(t *terms, name string, asked, size int64) (int64, bool) {
	within := func(least, most int64) bool { return least <= asked && asked <= most }
	switch {
	case name == "blksize" && within(smallestBlock, largestBlock):
		t.block = min(int(asked), max(l.Block(), smallestBlock))
		return int64(t.block), true
	case name == "windowsize" && within(1, largestWindow):
		t.window = min(int(asked), l.Window)
		return int64(t.window), true
	case name == "timeout" && within(1, longestTimeout): // must be repeated as it is
		t.timeout = time.Duration(asked) * time.Second
		return asked, true
	case name == "tsize" && size >= 0:
		return size, true
	}
	return 0, false
}
