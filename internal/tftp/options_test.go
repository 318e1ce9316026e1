package tftp

import (
	"slices"
	"testing"
	"time"
)

const testBlock = 1468

func limits() Limits {
	return Limits{Transfers: 8, PerClient: 2, Window: 16, Timeout: time.Second, Retries: 4, Block: func() int { return testBlock }}
}

func TestNegotiation(t *testing.T) {
	l := limits()
	type words = []option
	for _, c := range []struct {
		asked words
		want  terms
	}{
		{nil, terms{512, 1, time.Second, nil}},
		{words{{"blksize", "1024"}, {"tsize", "0"}}, terms{1024, 1, time.Second, words{{"blksize", "1024"}, {"tsize", "4711"}}}}, // GRUB
		{words{{"tsize", "0"}, {"blksize", "512"}, {"windowsize", "4"}}, terms{512, 4, time.Second, words{{"tsize", "4711"}, {"blksize", "512"}, {"windowsize", "4"}}}},
		{words{{"blksize", "65464"}, {"windowsize", "65535"}}, terms{testBlock, 16, time.Second, words{{"blksize", "1468"}, {"windowsize", "16"}}}},
		{words{{"timeout", "5"}}, terms{512, 1, 5 * time.Second, words{{"timeout", "5"}}}},
		{words{{"blksize", "8"}}, terms{8, 1, time.Second, words{{"blksize", "8"}}}},
		// Out of bounds, no number, unknown: as if it were not there.
		{words{{"timeout", "0"}, {"timeout", "3"}, {"blksize", "7"}, {"windowsize", "0"}}, terms{512, 1, time.Second, nil}},
		{words{{"timeout", "6"}, {"blksize", "65465"}, {"windowsize", "65536"}}, terms{512, 1, time.Second, nil}},
		{words{{"timeout", "-1"}, {"blksize", "1e3"}, {"windowsize", ""}, {"tsize", "x"}, {"multicast", ""}, {"", "1"}}, terms{512, 1, time.Second, nil}},
		{words{{"blksize", "18446744073709552128"}}, terms{512, 1, time.Second, nil}}, // 512 in 64 bits
		// The first of two counts.
		{words{{"blksize", "600"}, {"blksize", "700"}}, terms{600, 1, time.Second, words{{"blksize", "600"}}}},
	} {
		got := l.negotiate(c.asked, 4711)
		if got.block != c.want.block || got.window != c.want.window || got.timeout != c.want.timeout || !slices.Equal(got.agreed, c.want.agreed) {
			t.Errorf("%v: %+v, want %+v", c.asked, got, c.want)
		}
	}
	if got := l.negotiate(words{{"tsize", "0"}}, -1); len(got.agreed) > 0 {
		t.Errorf("a size that nobody knows: %+v", got)
	}
}

func TestWaits(t *testing.T) {
	for timeout, want := range map[time.Duration][]time.Duration{
		1: {1, 2, 4, 8, 8}, 3: {3, 6, 8, 8}, 5: {5, 8, 8}, 10: {10, 10},
	} {
		for again, want := range want {
			if got := (terms{timeout: timeout * time.Second}).wait(again); got != want*time.Second {
				t.Errorf("%d s, sent again %d times: %v", timeout, again, got)
			}
		}
	}
	if got := (terms{timeout: time.Second}).wait(1000); got != longestWait {
		t.Errorf("in the end: %v", got)
	}
}
