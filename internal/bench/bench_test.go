package bench

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/bench/nbdread"
)

func TestRowArithmetic(t *testing.T) {
	s := spec{system: "vfield", n: 4, mbit: 100, size: 1e9, start: figures.Simultaneous, runs: 3}
	at := func(speed float64) result {
		return result{speeds: []float64{speed, speed, speed - 2e6, speed + 2e6}, received: 4e9, sent: 1.1e9,
			recvCPU: 8, sendCPU: 2.2, busy: 0.5}
	}
	row := s.row([]result{at(12e6), at(9e6), at(10e6)}, 12.5e6)
	want := figures.Row{System: "vfield", N: 4, LinkMbit: 100, FileBytes: 1e9, Start: figures.Simultaneous, MeanVsNBD1: 0.8, WorstVsNBD1: 0.64,
		OriginCopies: 1.1, CPURecvPerGB: 2, CPUSendPerGB: 2, MachineBusy: 0.5, Runs: 3, MeanBytesPerS: 10e6}
	row.DemandP50, row.DemandP99 = 0, 0 // were missing, and so not equal to themselves
	if row != want {
		t.Errorf("row\n%+v, want\n%+v", row, want)
	}
}

func TestRowOfAWindow(t *testing.T) {
	s := spec{system: "nbd", n: 4, mbit: 100, size: 1e9, start: figures.Simultaneous, window: 10 * time.Second}
	row := s.row([]result{{speeds: []float64{3e6, 3e6, 3e6, 3e6}, received: 120e6, sent: 120e6, recvCPU: math.NaN(), sendCPU: 0.06}}, 12e6)
	if row.MeanVsNBD1 != 0.25 || row.OriginCopies != 4 || !row.CPURecvPerGB.Missing() || row.CPUSendPerGB != 0.5 {
		t.Errorf("%+v", row)
	}
}

func TestTheDeadDoNotCount(t *testing.T) {
	s := spec{system: "vfield", n: 4, mbit: 100, size: 1000, start: figures.Deaths}
	row := s.row([]result{{speeds: []float64{8, 8, 8}, received: 3500, sent: 1200}}, 10)
	if row.MeanVsNBD1 != 0.8 || row.OriginCopies != 1.2 {
		t.Errorf("%+v", row)
	}
}

func TestPercentile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 20: 1, 50: 3, 99: 5, 100: 5} {
		if got := percentile(v, p); got != want {
			t.Errorf("%g %% of %v: %g, want %g", p, v, got, want)
		}
	}
	if !math.IsNaN(percentile(nil, 50)) {
		t.Error("nothing has a median")
	}
}

// Only a whole run is published.
func TestPublish(t *testing.T) {
	out, docs := t.TempDir(), filepath.Join(t.TempDir(), "docs")
	var rows []figures.Row
	for _, s := range plan(false) {
		rows = append(rows, figures.Row{System: s.system})
	}
	leave := func(rows []figures.Row) {
		t.Helper()
		text, err := figures.Encode(rows)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{rowsFile: text, tableFile: []byte("table"), pictureFile: []byte("<svg/>")} {
			if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Publish(out, docs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing measured: %v", err)
	}
	leave(rows[:len(rows)-1]) // the last one is ours
	if err := Publish(out, docs); err == nil || !strings.Contains(err.Error(), "whole benchmark") {
		t.Errorf("a part of a run: %v", err)
	}
	leave(rows)
	if err := Publish(out, docs); err != nil {
		t.Fatal(err)
	}
	if table, err := os.ReadFile(filepath.Join(docs, tableFile)); err != nil || string(table) != "table" {
		t.Errorf("published %q, %v", table, err)
	}
}

// README shows the picture of a whole run, and the page beside it links its
// table.
func TestFiguresArePublished(t *testing.T) {
	for page, link := range map[string]string{
		"../../README.md":            "](docs/bench/" + pictureFile + ")",
		"../../docs/bench/README.md": "](" + tableFile + ")",
	} {
		if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), link) {
			t.Errorf("%s does not show %s (%v)", page, link, err)
		}
	}
	if err := Publish("../../docs/bench", t.TempDir()); err != nil {
		t.Errorf("docs/bench: %v", err)
	}
}

func TestPlanFitsItsTime(t *testing.T) {
	for quick, limit := range map[bool]time.Duration{true: 8 * time.Minute, false: 75 * time.Minute} {
		var sum time.Duration
		for _, s := range plan(quick) {
			sum += s.expected()
		}
		if sum > limit*9/10 {
			t.Errorf("quick %t: about %s, want well below %s", quick, sum, limit)
		}
		t.Logf("quick %t: %d rows, about %s", quick, len(plan(quick)), sum)
	}
}

// What a row is compared with comes before it.
func TestPlanMeasuresBaselinesFirst(t *testing.T) {
	for _, quick := range []bool{true, false} {
		known := map[int]bool{}
		for _, s := range plan(quick) {
			if s.system == "nbd" && s.n == 1 && s.kind != demand {
				known[s.mbit] = true
			}
			if s.kind != demand && !known[s.mbit] {
				t.Errorf("%s at %d Mbit/s has nothing to be compared with", s.name(), s.mbit)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(patterns ...string) (out []string) {
		rows, err := choose(plan(false), patterns)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range rows {
			out = append(out, s.name())
		}
		return out
	}
	if got := names("vfield:1", "vfield:16:deaths"); !reflect.DeepEqual(got, []string{"vfield:1:simultaneous", "vfield:16:deaths"}) {
		t.Errorf("chose %v", got)
	}
	if got := names("demand:vfield:16"); len(got) != 2 {
		t.Errorf("chose %v", got)
	}
	if _, err := choose(plan(false), []string{"vfield:3"}); err == nil || !strings.Contains(err.Error(), "vfield:4:simultaneous") {
		t.Errorf("a row that is not there: %v", err)
	}
}

func TestMoments(t *testing.T) {
	s := spec{n: 16, mbit: 50, size: fullSize, start: figures.Staggered}
	if m := s.moments(); m.delay(1) != 0 || m.delay(16) != s.fileTime() {
		t.Errorf("staggered: first after %s, last after %s, want 0 and %s", m.delay(1), m.delay(16), s.fileTime())
	}
	s.start = figures.Offsets
	seen := map[int64]bool{}
	for i := 1; i <= s.n; i++ {
		from := s.moments().from(i)
		if from < 0 || from >= s.size || from%nbdread.Size != 0 || seen[from] {
			t.Errorf("node %d begins at %d", i, from)
		}
		seen[from] = true
	}
	s.start = figures.Deaths
	if m := s.moments(); len(m.dying) != 4 {
		t.Errorf("%d of 16 die, want a quarter", len(m.dying))
	}
}
