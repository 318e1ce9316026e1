package bench

import (
	"math"
	"slices"

	"viver.lan/internal/bench/figures"
)

// result is what one run of a row gave.
type result struct {
	speeds   []float64 // of the nodes that lived, in bytes per second
	received int64     // by all nodes, in bytes
	sent     int64     // by the origin's link, in bytes
	recvCPU  float64   // of all receiving processes, in seconds; NaN if unknown
	sendCPU  float64   // of the origin's process
	busy     float64
	latency  []float64 // of demand reads, in milliseconds
}

func mean(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// percentile returns the smallest value that p per cent of v do not exceed
// (nearest rank). v is sorted by it.
func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	rank := int(math.Ceil(p / 100 * float64(len(v))))
	return v[max(rank, 1)-1]
}

// median returns the run whose mean speed, or whose median latency, is in the
// middle: the lower one of two.
func median(runs []result) result {
	sorted := slices.Clone(runs)
	key := func(r result) float64 {
		if len(r.latency) > 0 {
			return -percentile(slices.Clone(r.latency), 50)
		}
		return mean(r.speeds)
	}
	slices.SortFunc(sorted, func(a, b result) int {
		switch ka, kb := key(a), key(b); {
		case ka < kb:
			return -1
		case ka > kb:
			return 1
		}
		return 0
	})
	return sorted[(len(sorted)-1)/2]
}

// row makes the line of the median of runs. nbd1 is the speed of NBD with one
// node on such a link, in bytes per second.
func (s spec) row(runs []result, nbd1 float64) figures.Row {
	r := median(runs)
	out := figures.Row{System: s.system, N: s.n, LinkMbit: s.mbit, FileBytes: s.size, Start: s.start, Runs: len(runs),
		MeanVsNBD1: figures.None(), WorstVsNBD1: figures.None(), OriginCopies: figures.None(), CPURecvPerGB: figures.None(), CPUSendPerGB: figures.None(),
		DemandP50: figures.None(), DemandP99: figures.None(), MachineBusy: figures.Value(r.busy)}
	if s.kind == demand {
		out.DemandP50, out.DemandP99 = figures.Value(percentile(r.latency, 50)), figures.Value(percentile(r.latency, 99))
		return out
	}
	out.MeanBytesPerS = mean(r.speeds)
	out.MeanVsNBD1, out.WorstVsNBD1 = figures.Value(out.MeanBytesPerS/nbd1), figures.Value(slices.Min(r.speeds)/nbd1)
	perNode := float64(r.received) / float64(s.n)
	if len(r.speeds) < s.n || s.window == 0 {
		perNode = float64(s.size) // whoever died received less
	}
	out.OriginCopies = figures.Value(float64(r.sent) / perNode)
	out.CPURecvPerGB = figures.Value(r.recvCPU / (float64(r.received) / 1e9))
	out.CPUSendPerGB = figures.Value(r.sendCPU / (float64(r.sent) / 1e9))
	return out
}
