package bootphase

import (
	"testing"
	"time"
)

// run takes a second's samples of one kind, second by second, and returns what came
// out at the end of each: "." held back, "s" spare, "u" up.
func run(seconds ...Sample) string {
	var p Phase
	var now time.Duration
	var reads uint64
	out := ""
	for _, s := range seconds {
		for range time.Second / SampleEvery {
			now += SampleEvery
			reads += s.Reads
			p.Take(Sample{Now: now, Idle: s.Idle, Reads: reads, Waiting: s.Waiting, HandedOver: s.HandedOver})
		}
		switch {
		case p.Up() != Booting:
			out += "u"
		case p.Spare():
			out += "s"
		default:
			out += "."
		}
	}
	return out
}

func times(n int, s Sample) []Sample {
	out := make([]Sample, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestWhatMayBeDoneWhileAMachineBoots(t *testing.T) {
	busy := Sample{Idle: 0.1, Reads: 3, HandedOver: true}
	reading := Sample{Idle: 0.9, Reads: 3, HandedOver: true}
	working := Sample{Idle: 0.3, Reads: 3, HandedOver: true} // with such work going on
	waiting := Sample{Idle: 0.9, Reads: 1, Waiting: true, HandedOver: true}
	for _, c := range []struct {
		name    string
		seconds []Sample
		want    string
	}{
		{"a busy processor", times(4, busy), "...."},
		{"an idle one", times(3, reading), ".ss"},
		{"what the work takes itself", append(times(2, reading), times(2, working)...), ".sss"},
		{"not idle enough to begin", times(3, working), "..."},
		{"a processor that gets busy", append(times(2, reading), busy), ".s."},
		{"somebody waits for the disk", append(times(2, reading), waiting), ".s."},
	} {
		if got := run(c.seconds...); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWhenAMachineIsUp(t *testing.T) {
	for _, c := range []struct {
		name string
		each Sample
		want int // seconds until it is up, 0 for not in a minute
	}{
		{"quiet", Sample{Idle: 1, HandedOver: true}, 11},
		{"it reads now and then", Sample{Idle: 1, Reads: 1, HandedOver: true}, 0},
		{"it works and does not read", Sample{Idle: 0.1, HandedOver: true}, 0},
		{"quiet before its init", Sample{Idle: 1}, 0},
	} {
		got := run(times(60, c.each)...)
		n := len(got) - len(trimUp(got))
		if want := c.want; want == 0 && n != 0 || want != 0 && len(got)-n != want-1 {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	got := run(times(400, Sample{Idle: 0, Reads: 1, HandedOver: true})...)
	if before := len(trimUp(got)); before < 299 || before > 301 {
		t.Errorf("a boot that never ends counted as over after %d s", before)
	}
}

// What comes after the last word of the init, such as the prompt, is part of the boot on a
// machine that is busy with it; one that is not is up at once.
func TestWhenAMachineIsUpAfterItsInitIsReady(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after Sample
		want          time.Duration // from the init's word on
	}{
		{"busy", Sample{}, Sample{}, 5 * time.Second},
		{"it waits for its disk", Sample{}, Sample{Idle: 1, Waiting: true}, 5 * time.Second},
		{"it becomes idle", Sample{}, Sample{Idle: 1}, time.Second},
		{"idle before", Sample{Idle: 1}, Sample{Idle: 1}, SampleEvery},
		{"idle before, busy after", Sample{Idle: 1}, Sample{Idle: 0.4}, SampleEvery},
	} {
		var p Phase
		now := time.Duration(0)
		take := func(s Sample) {
			now += SampleEvery
			s.Now = now
			p.Take(s)
		}
		for range 40 {
			take(c.before)
		}
		p.Ready()
		said := now
		if p.Up() != Booting {
			t.Errorf("%s: up %q at the init's word", c.name, p.Up())
		}
		for range 100 {
			if p.Up() == Booting {
				take(c.after)
				p.Ready() // said twice is said once
			}
		}
		if p.Up() != Ready || !p.Spare() || now-said != c.want {
			t.Errorf("%s: up %q after %v, want %v", c.name, p.Up(), now-said, c.want)
		}
	}
}

// trimUp cuts off the seconds at the end in which the machine was up.
func trimUp(s string) string {
	for len(s) > 0 && s[len(s)-1] == 'u' {
		s = s[:len(s)-1]
	}
	return s
}
