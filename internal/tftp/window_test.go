package tftp

import (
	"encoding/binary"
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

// Whatever a client confirms, what is sent lies within the window, and but for
// time-outs it is bounded by what the client has confirmed.
func FuzzWindow(f *testing.F) {
	f.Add(byte(4), []byte{0, 0, 4, 0, 0, 2, 1, 0, 0, 2, 0, 9})
	f.Add(byte(16), []byte{0, 0, 1, 0, 0, 1, 0, 0, 2, 0, 255, 255})
	f.Fuzz(func(t *testing.T, size byte, events []byte) {
		w := newWindow(int(size%16) + 1)
		var sent, timeouts int64
		for ; len(events) >= 3; events = events[3:] {
			base, number := w.base, binary.BigEndian.Uint16(events[1:])
			switch events[0] % 4 {
			case 0: // a block of the window, for a quicker search
				w.confirm(uint16(w.base) + number%uint16(w.size))
			case 1:
				w.confirm(number)
			case 2:
				timeouts++
				w.expire()
			case 3:
				if w.last == 0 {
					w.last = w.next // the end is read with the block that is sent next
				}
			}
			for block, ok := w.due(); ok; block, ok = w.due() {
				if block < w.base || block >= w.base+int64(w.size) || w.last != 0 && block > w.last {
					t.Fatalf("block %d is sent: %+v", block, w)
				}
				sent++
				w.sent()
			}
			if w.base < base || w.base > w.next {
				t.Fatalf("confirmed up to %d, then %+v", base, w)
			}
			if most := (repeatsPerBlock+1)*(w.base-1) + repeatsFree + (timeouts+1)*int64(w.size); sent > most {
				t.Fatalf("%d blocks sent, want %d at most: %+v", sent, most, w)
			}
		}
	})
}
