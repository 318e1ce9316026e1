// Package figures is what a benchmark's result looks like: its rows, as JSON,
// as a table, as a picture, and held against the aims.
//
// It measures nothing. The invariant: the keys of a row and what they mean
// stay as docs/bench/README.md says; a figure that was not measured is null
// and never 0.
package figures

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// How the nodes of a row begin to read.
const (
	Simultaneous = "simultaneous" // all at once, from the file's start
	Staggered    = "staggered"    // one after the other, over the time a file takes
	Offsets      = "offsets"      // all at once, each from somewhere else, round the end
	Deaths       = "deaths"       // as simultaneous; a quarter of the nodes is killed half-way
)

// Value is a measured number; NaN is one that a row does not have, null in
// JSON.
type Value float64

// None is the Value of what was not measured.
func None() Value { return Value(math.NaN()) }

// Missing reports whether there is no such figure.
func (f Value) Missing() bool { return math.IsNaN(float64(f)) }

// MarshalJSON implements json.Marshaler.
func (f Value) MarshalJSON() ([]byte, error) {
	if f.Missing() {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(f), 'g', 4, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Value) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*f = None()
		return nil
	}
	v, err := strconv.ParseFloat(string(b), 64)
	*f = Value(v)
	return err
}

// Row is one line of the result: one system in one situation. Its JSON is the
// format of vfield.json.
type Row struct {
	System string `json:"system"`
	// N is the number of nodes that read; in rows with demand figures, the
	// number of readers on one node.
	N         int    `json:"n"`
	LinkMbit  int    `json:"link_mbit"` // 0: not throttled
	FileBytes int64  `json:"file_bytes"`
	Start     string `json:"start"`
	// MeanVsNBD1 is the mean speed of the nodes, WorstVsNBD1 that of the
	// slowest, over the speed of NBD with one node on the same link.
	MeanVsNBD1  Value `json:"mean_vs_nbd1"`
	WorstVsNBD1 Value `json:"worst_vs_nbd1"`
	// OriginCopies is what left the origin's link over what one node received.
	OriginCopies Value `json:"origin_copies"`
	CPURecvPerGB Value `json:"cpu_recv_s_per_gb"`
	CPUSendPerGB Value `json:"cpu_send_s_per_gb"`
	DemandP50    Value `json:"demand_p50_ms"`
	DemandP99    Value `json:"demand_p99_ms"`
	MachineBusy  Value `json:"machine_busy"` // share of all CPUs, 0 to 1
	Runs         int   `json:"runs"`         // the figures are those of the median run
	// MeanBytesPerS is the mean speed of the nodes.
	MeanBytesPerS float64 `json:"-"`
}

// Encode writes the rows of a benchmark as a JSON array, one object on each line.
func Encode[R any](rows []R) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("[\n")
	for i, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode row %d: %w", i, err)
		}
		b.Write(line)
		if i < len(rows)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]\n")
	return b.Bytes(), nil
}
