package tftp

import (
	"fmt"
	"strings"
	"testing"
)

// play lets a window run through events: "ACK n", "time-out", "end n" for the
// file's last block. It returns what is sent after each.
func play(size int, start int64, events string) string {
	w := newWindow(size)
	w.base, w.next = start, start
	var log []string
	launch := func() {
		var sent []string
		for block, ok := w.due(); ok; block, ok = w.due() {
			sent = append(sent, fmt.Sprint(block))
			w.sent()
		}
		log = append(log, strings.Join(sent, " "))
	}
	launch()
	for event := range strings.SplitSeq(events, ", ") {
		var n int64
		switch {
		case event == "time-out":
			w.expire()
		case strings.HasPrefix(event, "end "):
			fmt.Sscanf(event, "end %d", &n)
			w.last = n
			continue
		default:
			fmt.Sscanf(event, "ACK %d", &n)
			w.confirm(uint16(n))
		}
		if w.done() {
			log = append(log, "done")
			break
		}
		launch()
	}
	return strings.Join(log, " | ")
}

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		what         string
		size         int
		start        int64
		events, want string
	}{
		{"in lockstep", 1, 1, "ACK 1, ACK 2, end 3, ACK 3", "1 | 2 | 3 | done"},
		{"an ACK that comes twice, in lockstep", 1, 1, "ACK 1, ACK 1, ACK 1, ACK 2", "1 | 2 |  |  | 3"},
		{"time-outs in lockstep", 1, 1, "time-out, time-out, ACK 1, ACK 1", "1 | 1 | 1 | 2 | "},
		{"windows", 4, 1, "ACK 4, end 10, ACK 8, ACK 10", "1 2 3 4 | 5 6 7 8 | 9 10 | done"},
		{"a block is lost in a window", 4, 1, "ACK 2, ACK 6", "1 2 3 4 | 3 4 5 6 | 7 8 9 10"},
		{"and reported with each block behind it", 4, 1, "ACK 1, ACK 1, ACK 5, ACK 9", "1 2 3 4 | 2 3 4 5 |  | 6 7 8 9 | 10 11 12 13"},
		{"a window's first block is lost", 4, 5, "ACK 4, ACK 4, ACK 4, ACK 8", "5 6 7 8 | 5 6 7 8 |  |  | 9 10 11 12"},
		{"echoes of a window that was sent twice", 4, 5, "time-out, ACK 8, ACK 8, ACK 8, ACK 12, ACK 12, ACK 16, ACK 16", "5 6 7 8 | 5 6 7 8 | 9 10 11 12 |  |  | 13 14 15 16 | 13 14 15 16 | 17 18 19 20 | "},
		{"the time-out", 4, 1, "time-out, ACK 4", "1 2 3 4 | 1 2 3 4 | 5 6 7 8"},
		{"an ACK of what was not sent", 4, 1, "ACK 5, ACK 100, ACK 65535, ACK 4", "1 2 3 4 |  |  |  | 5 6 7 8"},
		{"an ACK of long ago", 4, 101, "ACK 99, ACK 1, ACK 104", "101 102 103 104 |  |  | 105 106 107 108"},
		{"the number wraps", 4, 65534, "ACK 65535, ACK 3, ACK 3, ACK 7", "65534 65535 65536 65537 | 65536 65537 65538 65539 | 65540 65541 65542 65543 |  | 65544 65545 65546 65547"},
		{"and wraps to zero", 1, 65535, "ACK 65535, ACK 0, ACK 1", "65535 | 65536 | 65537 | 65538"},
		{"the last block is lost", 4, 1, "end 3, ACK 2, ACK 3", "1 2 3 4 | 3 | done"},
	} {
		if got := play(c.size, c.start, c.events); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}
