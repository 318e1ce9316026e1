package figures

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

const tableFormat = "%-14s %3s %5s %5s %-12s %8s %7s %7s %7s %8s %8s %8s %8s %5s %4s\n"

// TableHead returns the names of the columns of TableLine.
func TableHead() string {
	return fmt.Sprintf(tableFormat, "system", "N", "Mbit", "MB", "start", "MB/s", "mean", "worst", "copies", "recv/GB", "send/GB", "p50 ms", "p99 ms", "busy", "runs")
}

// TableLine is a row for the terminal.
func TableLine(r Row) string {
	return fmt.Sprintf(tableFormat, r.System, fmt.Sprint(r.N), mbit(r), fmt.Sprint(r.FileBytes/1e6), r.Start,
		number(Value(zeroMissing(r.MeanBytesPerS/1e6)), 1), percent(r.MeanVsNBD1), percent(r.WorstVsNBD1), number(r.OriginCopies, 3),
		number(r.CPURecvPerGB, 2), number(r.CPUSendPerGB, 2), number(r.DemandP50, 2), number(r.DemandP99, 2), percent(r.MachineBusy), fmt.Sprint(r.Runs))
}

func zeroMissing(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

func mbit(r Row) string {
	if r.LinkMbit == 0 {
		return "open"
	}
	return fmt.Sprint(r.LinkMbit)
}

func number(f Value, digits int) string {
	if f.Missing() {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, float64(f))
}

func percent(f Value) string {
	if f.Missing() {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(f))
}

// Failure is a row that could not be measured.
type Failure struct {
	Row string
	Err error
}

// Markdown is the result of a run as a page. bed says on what machine and with
// which versions it was made.
func Markdown(rows []Row, failed []Failure, bed string, begin time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Figures of %s\n\n%s. [README.md](README.md) explains the columns.\n\n", begin.Format("2 January 2006, 15:04"), bed)
	b.WriteString("| system | N | link Mbit/s | file MB | start | mean MB/s | mean / NBD at N=1 | worst / NBD at N=1 | origin sent, files | CPU s per GB received | CPU s per GB sent | 4 KiB read p50 ms | p99 ms | machine busy | runs |\n")
	b.WriteString("|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %s | %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %d |\n", r.System, r.N, mbit(r), r.FileBytes/1e6, r.Start,
			number(Value(zeroMissing(r.MeanBytesPerS/1e6)), 1), percent(r.MeanVsNBD1), percent(r.WorstVsNBD1), number(r.OriginCopies, 3),
			number(r.CPURecvPerGB, 2), number(r.CPUSendPerGB, 2), number(r.DemandP50, 2), number(r.DemandP99, 2), percent(r.MachineBusy), r.Runs)
	}
	for _, f := range failed {
		why, _, _ := strings.Cut(f.Err.Error(), "\n")
		fmt.Fprintf(&b, "\nNot measured: %s: %s\n", f.Row, why)
	}
	b.WriteString(Verdict(rows).Markdown())
	return b.String()
}

// Line is one figure held against what we aim at.
type Line struct {
	What      string
	Value     float64
	AtMost    bool    // the bounds are upper ones
	Aim, Land float64 // NaN where the figure is only told
}

func (l Line) bound(v float64) string {
	switch {
	case math.IsNaN(v):
		return "told"
	case l.AtMost:
		return fmt.Sprintf("≤ %g", v)
	}
	return fmt.Sprintf("≥ %g", v)
}

// word says how a figure stands.
func (l Line) word() string {
	better := func(bound float64) bool { return l.AtMost && l.Value <= bound || !l.AtMost && l.Value >= bound }
	switch {
	case math.IsNaN(l.Aim):
		return ""
	case better(l.Aim):
		return "reached"
	case math.IsNaN(l.Land):
		return "short of it"
	case better(l.Land):
		return "lands"
	}
	return "TOO LITTLE"
}

// Lines are figures held against the aims.
type Lines []Line

// Text is Lines for the terminal.
func (ls Lines) Text() string {
	if len(ls) == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "against the aim\tmeasured\taim\tat least\t")
	for _, l := range ls {
		fmt.Fprintf(w, "%s\t%.3g\t%s\t%s\t%s\n", l.What, l.Value, l.bound(l.Aim), l.bound(l.Land), l.word())
	}
	w.Flush() // into memory
	return b.String()
}

// Markdown is Lines as a section of a page; empty if there are none.
func (ls Lines) Markdown() string {
	if len(ls) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## Against the aim\n\n| | measured | aim | at least |\n|---|--:|--:|--:|\n")
	for _, l := range ls {
		fmt.Fprintf(&b, "| %s | %.3g | %s | %s |\n", l.What, l.Value, l.bound(l.Aim), l.bound(l.Land))
	}
	return b.String()
}

// Verdict holds rows against the aims, as ratios within one run. Figures that
// were not measured are left out.
func Verdict(rows []Row) (out Lines) {
	told := math.NaN()
	const throttled = -1 // at whatever rate
	find := func(system string, n, mbit int, start string, demand bool) *Row {
		for i, r := range rows {
			if r.System == system && r.N == n && r.Start == start && !r.DemandP50.Missing() == demand && (r.LinkMbit == mbit || mbit == throttled && r.LinkMbit > 0) {
				return &rows[i]
			}
		}
		return nil
	}
	add := func(what string, f Value, atMost bool, aim, land float64) {
		if !f.Missing() {
			out = append(out, Line{what, float64(f), atMost, aim, land})
		}
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		r := find("vfield", n, throttled, Simultaneous, false)
		if r == nil {
			continue
		}
		aim, land := 0.97, 0.93
		switch n {
		case 1:
			aim, land = 0.98, 0.97
		case 2, 8:
			land = told
		case 32:
			aim, land = 0.95, 0.85
		}
		name := fmt.Sprintf("N=%d: ", n)
		add(name+"mean speed / NBD's at N=1", r.MeanVsNBD1, false, aim, land)
		if n > 1 {
			add(name+"worst node", r.WorstVsNBD1, false, 0.93, 0.85)
		}
		add(name+"files the origin sent", r.OriginCopies, true, 1.02, 1.1)
	}
	for _, start := range []string{Staggered, Offsets} {
		if r := find("vfield", 16, throttled, start, false); r != nil {
			add("N=16, "+start+": mean speed / NBD's at N=1", r.MeanVsNBD1, false, 0.85, told)
		}
	}
	ratio := func(what string, a, b *Row, get func(*Row) Value, aim, land float64) {
		if a != nil && b != nil {
			add(what, get(a)/get(b), true, aim, land)
		}
	}
	recv := func(r *Row) Value { return r.CPURecvPerGB }
	open := func(system string) *Row { return find(system, 1, 0, Simultaneous, false) }
	ratio("receive CPU per GB / libtorrent's", open("vfield-receive"), open("libtorrent"), recv, 0.6, 0.8)
	ratio("the same, and read through the export", open("vfield"), open("libtorrent"), recv, 0.6, told)
	ratio("send CPU per GB / nbdkit's", open("vfield"), open("nbd"), func(r *Row) Value { return r.CPUSendPerGB }, 1.5, told)
	p50 := func(r *Row) Value { return r.DemandP50 }
	for _, readers := range []int{1, 16} {
		name := fmt.Sprintf("4 KiB demand p50 / NBD's for the piece, %d reader(s), ", readers)
		ratio(name+"100 Mbit/s", find("vfield", readers, 100, Simultaneous, true), find("nbd", readers, 100, Simultaneous, true), p50, 1.1, 1.3)
		ratio(name+"open link", find("vfield", readers, 0, Simultaneous, true), find("nbd", readers, 0, Simultaneous, true), p50, 3, told)
	}
	return out
}
