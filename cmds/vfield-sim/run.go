package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/durable"
	"viver.lan/internal/sim"
)

// output is what sim.json holds.
type output struct {
	Runs     []sim.Row      `json:"runs"`
	Survival []sim.Survivor `json:"survival,omitempty"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c sim.Config
	var mbit float64
	var out, bed string
	var only string
	parallel := 2
	f := flag.NewFlagSet("vfield-sim", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&c.Nodes, "n", 0, "simulate one network of so many nodes instead of the table")
	f.IntVar(&c.Pieces, "pieces", 512, "pieces of the image")
	f.Int64Var(&c.PieceBytes, "piece", 128<<10, "bytes of a piece")
	f.Float64Var(&mbit, "mbit", 1000, "a link's rate in Mbit/s, each way")
	f.DurationVar(&c.Latency, "latency", 200*time.Microsecond, "one way between two machines")
	f.IntVar(&c.Peers, "peers", 200, "connections of a machine at most")
	f.IntVar(&c.Enough, "enough", 0, "connections with which a machine stops dialling (0: as the engine)")
	f.DurationVar(&c.Skew, "skew", 0, "time over which the nodes start")
	f.Float64Var(&c.Deaths, "churn", 0, "part of the nodes that die meanwhile and come back empty")
	f.Uint64Var(&c.Seed, "seed", 1, "the same seed gives the same result")
	f.StringVar(&bed, "bed", "", "hold the simulation against the rows of this file of the bench, and do nothing else")
	f.StringVar(&only, "only", "", "of the table, simulate only what has this in its name: \"100 nodes\", \"churn\"")
	f.StringVar(&out, "o", "", "write the results to this file, as JSON")
	f.IntVar(&parallel, "parallel", parallel, "networks simulated at a time")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if bed != "" {
		return compare(bed, c.Seed, stdout)
	}
	cases, churns := sim.Table(c.Seed), sim.ChurnTable(c.Seed)
	cases = slices.DeleteFunc(cases, func(c sim.Case) bool { return !strings.Contains(name(c), only) })
	churns = slices.DeleteFunc(churns, func(c sim.Churn) bool { return !strings.Contains(churnName(c), only) })
	if c.Nodes > 0 {
		c.Link = mbit * 1e6 / 8
		c.Reborn = true
		cases, churns = []sim.Case{{Name: "as asked", Config: c}}, nil
	}
	begin := time.Now()
	rows, survivors, err := simulate(ctx, cases, churns, parallel, stderr)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, sim.Format(rows))
	if len(survivors) > 0 {
		fmt.Fprint(stdout, "\n", sim.FormatSurvivors(survivors))
	}
	fmt.Fprintf(stdout, "\n%s in all\n", time.Since(begin).Round(time.Second))
	if out == "" {
		return nil
	}
	b, err := json.MarshalIndent(output{rows, survivors}, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(out, append(b, '\n'), 0o644)
}

func name(c sim.Case) string { return fmt.Sprintf("%d nodes, %s", c.Config.Nodes, c.Name) }

func churnName(c sim.Churn) string {
	return fmt.Sprintf("%d nodes, churn with %d copies", c.Nodes, c.Copies)
}

// simulate runs everything, a few at a time, the first ones first.
func simulate(ctx context.Context, cases []sim.Case, churns []sim.Churn, parallel int, stderr io.Writer) ([]sim.Row, []sim.Survivor, error) {
	rows, survivors := make([]sim.Row, len(cases)), make([]sim.Survivor, len(churns))
	var mu sync.Mutex // one line at a time
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, parallel))
	for i, c := range cases {
		g.Go(func() error {
			begin, said := time.Now(), time.Now()
			c.Config.Progress = func(p sim.Progress) bool {
				if time.Since(said) > 5*time.Second {
					said = time.Now()
					mu.Lock()
					fmt.Fprintf(stderr, "%s: %3.0f %%, %v simulated, %.0f s\n", name(c),
						100*float64(p.Moved)/float64(p.All), p.Now.Round(10*time.Millisecond), time.Since(begin).Seconds())
					mu.Unlock()
				}
				return ctx.Err() == nil
			}
			s, err := sim.New(c.Config)
			if err != nil {
				return err
			}
			r, err := s.Run()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rows[i] = sim.NewRow(c, r, time.Since(begin), err)
			mu.Lock()
			fmt.Fprintf(stderr, "%s: mean %.3f, worst %.3f of the bound, %.3f origin copies, %.0f s\n",
				name(c), r.Mean, r.Worst, r.OriginCopies, time.Since(begin).Seconds())
			mu.Unlock()
			return nil
		})
	}
	for i, c := range churns {
		g.Go(func() error {
			begin := time.Now()
			s, err := sim.Survive(ctx, c)
			if err != nil {
				return err
			}
			survivors[i] = sim.NewSurvivor(c, s, time.Since(begin))
			mu.Lock()
			fmt.Fprintf(stderr, "%s: %d pieces lost, %.0f s\n", churnName(c), s.Lost, time.Since(begin).Seconds())
			mu.Unlock()
			return nil
		})
	}
	return rows, survivors, g.Wait()
}

// published is where the figures of the last published bench are.
const published = "docs/bench/vfield.json"

// compare prints what the bench measured beside what the simulation says.
func compare(path string, seed uint64, stdout io.Writer) error {
	beds, err := sim.ReadBed(path)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(stdout, "no results of the bench in %s; those of %s:\n", path, published)
		beds, err = sim.ReadBed(published)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "| nodes | Mbit/s | MB | bed: mean / NBD | simulated: mean / link | apart | bed: worst | simulated: worst | origin copies, bed | simulated | bed's CPUs busy |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	var apart error
	for _, b := range beds {
		c, err := sim.Compare(b, seed)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "| %d | %g | %.0f | %.3f | %.3f | %+.1f %% | %.3f | %.3f | %.3f | %.3f | %.0f %% |\n", b.N, b.LinkMbit, float64(b.FileBytes)/1e6,
			b.Mean, c.Sim.Mean, 100*c.Off(), b.Worst, c.Sim.Worst, b.OriginCopies, c.Sim.OriginCopies, 100*b.MachineBusy)
		if (b.N == 8 || b.N == 16) && !c.Agrees() && !c.Starved() {
			apart = fmt.Errorf("bed and simulation differ by %.1f %% at %d nodes, more than a tenth: one of them is wrong about the engine", 100*c.Off(), b.N)
		}
	}
	return apart
}
