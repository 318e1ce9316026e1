package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
)

// Bed is what one run of real processes in network namespaces measured.
type Bed struct {
	System       string  `json:"system"`
	N            int     `json:"n"`
	LinkMbit     float64 `json:"link_mbit"`
	FileBytes    int64   `json:"file_bytes"`
	Start        string  `json:"start"`
	Mean         float64 `json:"mean_vs_nbd1"`
	Worst        float64 `json:"worst_vs_nbd1"`
	OriginCopies float64 `json:"origin_copies"`
	MachineBusy  float64 `json:"machine_busy"`
}

// ReadBed returns the rows of a benchmark's result that a simulation can be
// held against: our own system, all nodes at once, over a link of known rate.
func ReadBed(path string) ([]Bed, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("results of the bench: %w", err)
	}
	var all, rows []Bed
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("results of the bench in %s: %w", path, err)
	}
	for _, r := range all {
		if r.System == "vfield" && r.Start == "simultaneous" && r.LinkMbit > 0 && r.FileBytes > 0 && r.N > 0 && r.Mean > 0 {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// Comparison holds a simulation against the bed.
type Comparison struct {
	Bed Bed
	Sim Result
}

// Off is how far the simulation's mean speed is from the bed's, as a part of
// the bed's.
func (c Comparison) Off() float64 { return c.Sim.Mean/c.Bed.Mean - 1 }

// Agrees reports whether the two differ by a tenth at most.
func (c Comparison) Agrees() bool { return math.Abs(c.Off()) <= 0.1 }

// Starved reports whether the bed was short of processors, which the
// simulation knows nothing of.
func (c Comparison) Starved() bool { return c.Bed.MachineBusy > 0.95 }

// bedReads is what the bed's reader has asked for at a time.
const bedReads = 4 << 20

// Compare simulates what the bed did. The bed counts in the speed of a plain
// transfer over the same link, so the overhead of packets cancels out.
func Compare(b Bed, seed uint64) (Comparison, error) {
	cfg := Config{Nodes: b.N, Link: b.LinkMbit * 1e6 / 8, Seed: seed}.withDefaults()
	cfg.Readers = int(bedReads / cfg.PieceBytes)
	cfg.Pieces = int((b.FileBytes + cfg.PieceBytes - 1) / cfg.PieceBytes)
	s, err := New(cfg)
	if err != nil {
		return Comparison{}, err
	}
	r, err := s.Run()
	return Comparison{Bed: b, Sim: r}, err
}
