package sim

import (
	"fmt"
	"strings"
	"time"
)

// Case is a named run of the published table.
type Case struct {
	Name   string
	Config Config
}

// Table returns the runs of the published table.
func Table(seed uint64) []Case {
	base := func(nodes, pieces int, kib int64) Config {
		return Config{Nodes: nodes, Pieces: pieces, PieceBytes: kib << 10, Seed: seed}
	}
	var cases []Case
	add := func(name string, c Config, f func(*Config)) {
		if f != nil {
			f(&c)
		}
		cases = append(cases, Case{name, c})
	}
	skew := func(c *Config) { c.Skew = c.Bound() }
	churn := func(c *Config) { c.Deaths, c.Reborn = 0.25, true }
	rooms := func(c *Config) { c.Rooms, c.Skew = 2, 4*c.Bound() }
	ten := base(10000, 512, 1024)
	add("all at once", ten, nil)
	add("over a file time, a quarter replaced", ten, func(c *Config) { skew(c); churn(c) })
	for _, c := range []Config{base(1000, 1024, 512), base(100, 4096, 128)} {
		add("all at once", c, nil)
		add("over a file time", c, skew)
		add("a quarter replaced", c, churn)
	}
	add("two rooms", base(400, 512, 1024), rooms)
	add("two rooms, all dial 200", base(400, 512, 1024), func(c *Config) { rooms(c); c.Enough = 200 })
	add("short image", base(100, 512, 128), nil)
	return cases
}

// ChurnTable returns the networks whose pieces have to survive, for two to five
// copies.
func ChurnTable(seed uint64) []Churn {
	var all []Churn
	for _, c := range []Churn{
		{Nodes: 10000, Lifetime: time.Hour, Length: 3 * time.Minute},
		{Nodes: 1000, Lifetime: 10 * time.Minute, Length: 10 * time.Minute},
		{Nodes: 1000, Lifetime: 10 * time.Hour, Length: 10 * time.Minute, Strike: 0.1},
		{Nodes: 100, Lifetime: 10 * time.Minute, Length: 30 * time.Minute},
		{Nodes: 100, Lifetime: 10 * time.Hour, Length: 10 * time.Minute, Strike: 0.1},
	} {
		for c.Copies = 2; c.Copies <= 5; c.Copies++ {
			c.Seed = seed
			all = append(all, c)
		}
	}
	return all
}

// Survivor is a line of the result about churn, as it stands in sim.json.
type Survivor struct {
	Nodes     int     `json:"nodes"`
	Pieces    int     `json:"pieces"`
	Copies    int     `json:"copies"`
	LifetimeS float64 `json:"lifetime_s"`
	Strike    float64 `json:"strike"`
	LengthS   float64 `json:"length_s"`
	Seed      uint64  `json:"seed"`
	Survival
	TookSeconds float64 `json:"took_s"`
}

// NewSurvivor describes what came of c.
func NewSurvivor(c Churn, s Survival, took time.Duration) Survivor {
	c = c.withDefaults()
	return Survivor{c.Nodes, c.Pieces, c.Copies, c.Lifetime.Seconds(), c.Strike, c.Length.Seconds(), c.Seed, s, took.Seconds()}
}

// FormatSurvivors returns lines as a table for people.
func FormatSurvivors(rows []Survivor) string {
	var b strings.Builder
	b.WriteString("| nodes | mean life | at once | over | copies | deaths | pieces lost | of | fewest copies left | copies made |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d | %v | %.0f %% | %v | %d | %d | %d | %d | %d | %d |\n", r.Nodes, time.Duration(r.LifetimeS)*time.Second,
			100*r.Strike, time.Duration(r.LengthS)*time.Second, r.Copies, r.Deaths, r.Lost, r.Pieces, r.Fewest, r.Fetched)
	}
	return b.String()
}

// Row is a line of the result, as it stands in sim.json.
type Row struct {
	Name          string             `json:"name"`
	Nodes         int                `json:"nodes"`
	Pieces        int                `json:"pieces"`
	PieceBytes    int64              `json:"piece_bytes"`
	LinkMbit      float64            `json:"link_mbit"`
	LatencyMs     float64            `json:"latency_ms"`
	Peers         int                `json:"peers"`
	Enough        int                `json:"enough_peers"`
	SkewS         float64            `json:"skew_s"`
	Deaths        float64            `json:"deaths"`
	Seed          uint64             `json:"seed"`
	BoundS        float64            `json:"bound_s"`
	MeanVsBound   float64            `json:"mean_vs_bound"`
	WorstVsBound  float64            `json:"worst_vs_bound"`
	Finished      int                `json:"finished"`
	OriginCopies  float64            `json:"origin_copies"`
	WastedPerNode float64            `json:"wasted_per_node"`
	SecondsToR    map[string]float64 `json:"seconds_to_replicas"`
	Lost          int                `json:"pieces_only_at_origin"`
	Events        uint64             `json:"events"`
	TookSeconds   float64            `json:"took_s"`
	Error         string             `json:"error,omitempty"`
}

// NewRow describes a run and its result; err is what Run returned.
func NewRow(c Case, r Result, took time.Duration, err error) Row {
	cfg := c.Config.withDefaults()
	row := Row{
		Name: c.Name, Nodes: cfg.Nodes, Pieces: cfg.Pieces, PieceBytes: cfg.PieceBytes, LinkMbit: cfg.Link * 8 / 1e6,
		LatencyMs: float64(cfg.Latency) / 1e6, Peers: cfg.Peers, Enough: cfg.Enough, SkewS: cfg.Skew.Seconds(), Deaths: cfg.Deaths, Seed: cfg.Seed,
		BoundS: r.Bound.Seconds(), MeanVsBound: r.Mean, WorstVsBound: r.Worst, Finished: r.Finished, OriginCopies: r.OriginCopies,
		WastedPerNode: r.Wasted, SecondsToR: map[string]float64{}, Lost: r.Lost, Events: r.Events, TookSeconds: took.Seconds(),
	}
	for k, at := range r.Replicas {
		if k > 0 && at > 0 {
			row.SecondsToR[fmt.Sprint(k)] = at.Seconds()
		}
	}
	if err != nil {
		row.Error = err.Error()
	}
	return row
}

// Format returns rows as a table for people.
func Format(rows []Row) string {
	var b strings.Builder
	b.WriteString("| nodes | pieces | start | bound s | mean / bound | worst / bound | origin copies | s to 1, 2, 4 replicas | events | took s |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d | %d x %d KiB | %s | %.2f | %.3f | %.3f | %.3f | %.2f, %.2f, %.2f | %.1f M | %.0f |\n",
			r.Nodes, r.Pieces, r.PieceBytes>>10, r.Name, r.BoundS, r.MeanVsBound, r.WorstVsBound, r.OriginCopies,
			r.SecondsToR["1"], r.SecondsToR["2"], r.SecondsToR["4"], float64(r.Events)/1e6, r.TookSeconds)
		if r.Error != "" {
			fmt.Fprintf(&b, "\n%s\n\n", r.Error)
		}
	}
	return b.String()
}
