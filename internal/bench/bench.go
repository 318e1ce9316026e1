// Package bench measures V-FIELD against NBD, HTTP and BitTorrent clients on a
// bed of network namespaces, one system at a time, in one run on one machine.
//
// It starts the real programs and reads what they deliver; it knows nothing of
// their insides and tunes nothing. docs/bench/README.md explains the method.
// The invariant: a speed is reported only after every byte that was read has
// been compared with the original.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/bench/process"
	"viver.lan/internal/durable"
	"viver.lan/internal/netbed"
)

// Options say what to measure.
type Options struct {
	// Quick measures V-FIELD with 1, 4 and 16 nodes and NBD with one.
	Quick bool
	// Only, when not empty, names the rows to measure: "vfield:16", "demand".
	Only []string
	// Runs, Megabytes and Mbit, when not 0, replace the plan's number of runs,
	// file size (in 10^6 bytes) and link rate.
	Runs, Megabytes, Mbit int
	// VField is the daemon to measure.
	VField string
	// Out is where results and logs go.
	Out string
	// Print takes the table; Terminal says that it can show progress.
	Print    io.Writer
	Terminal bool

	self    string // this program, for workers in nodes
	scratch string // a directory in memory
}

// Names of the results in Options.Out.
const (
	rowsFile    = "vfield.json"
	pictureFile = "vfield.svg"
	tableFile   = "table.md"
)

// Run measures, inside of the namespaces that netbed.Self makes. After every
// row the results so far are in Options.Out. Rows that failed are named in the
// error; the others were measured all the same.
func Run(ctx context.Context, o Options) error {
	if err := netbed.Settle(); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := o.prepare(); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	rows, err := choose(plan(o.Quick), o.Only)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for i := range rows {
		o.override(&rows[i])
	}
	b := &bench{options: &o, plan: rows, nbd1: make(map[int]float64), begin: time.Now(),
		bed: process.Machine() + "; " + process.Strangers(ctx)}
	defer b.dropPayload()
	if err := b.measureAll(ctx); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

// prepare makes room in memory: a tmpfs of our own, which is gone with us.
func (o *Options) prepare() (err error) {
	if o.self, err = os.Executable(); err != nil {
		return err
	}
	for _, path := range []*string{&o.VField, &o.Out} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if _, err := os.Stat(o.VField); err != nil {
		return fmt.Errorf("the daemon to measure: %w; build it with: go build -o %s ./cmds/vfield", err, o.VField)
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=95%"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	o.scratch, err = os.MkdirTemp("/dev/shm", "bench-")
	return err
}

func (o *Options) override(s *spec) {
	if o.Runs > 0 {
		s.runs = o.Runs
	}
	if o.Megabytes > 0 {
		s.size = int64(o.Megabytes) * 1e6
	}
	if o.Mbit > 0 && s.mbit > 0 {
		s.mbit = o.Mbit
	}
}

// bench is a run of the whole plan.
type bench struct {
	options *Options
	plan    []spec
	nbd1    map[int]float64 // NBD's speed with one node, by link rate
	payload *payload
	rows    []figures.Row
	failed  []figures.Failure
	begin   time.Time
	bed     string // machine and versions
}

func (b *bench) measureAll(ctx context.Context) error {
	fmt.Fprintf(b.options.Print, "%s\n%d rows, about %s\n%s", b.bed, len(b.plan), b.left(0).Round(10*time.Second), figures.TableHead())
	for i, s := range b.plan {
		row, err := b.measureRow(ctx, s)
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("interrupted, what was measured is in %s: %w", b.options.Out, ctx.Err()), b.failures())
		}
		if err != nil {
			b.failed = append(b.failed, figures.Failure{Row: s.name(), Err: err})
			fmt.Fprintf(b.options.Print, "failed: %s: %v\n", s.name(), err)
		} else {
			b.rows = append(b.rows, row)
			fmt.Fprint(b.options.Print, figures.TableLine(row))
		}
		if err := b.write(); err != nil {
			return err
		}
		if left := b.left(i + 1); i%8 == 7 {
			fmt.Fprintf(b.options.Print, "# after %s, about %s left\n", time.Since(b.begin).Round(time.Second), left.Round(time.Minute))
		}
	}
	fmt.Fprintf(b.options.Print, "\n%s\n%s; results in %s\n", figures.Verdict(b.rows).Text(), time.Since(b.begin).Round(time.Second), b.options.Out)
	return b.failures()
}

// failures names the rows that could not be measured; why was printed.
func (b *bench) failures() error {
	if len(b.failed) == 0 {
		return nil
	}
	var names []string
	for _, f := range b.failed {
		names = append(names, f.Row)
	}
	return fmt.Errorf("not measured: %s (logs in %s)", strings.Join(names, ", "), filepath.Join(b.options.Out, "log"))
}

// left is about how long the plan takes from row i on.
func (b *bench) left(i int) (sum time.Duration) {
	for _, s := range b.plan[i:] {
		sum += s.expected()
	}
	return sum
}

func (b *bench) measureRow(ctx context.Context, s spec) (figures.Row, error) {
	if err := b.fit(&s); err != nil {
		return figures.Row{}, err
	}
	nbd1 := b.nbd1[s.mbit]
	isBaseline := s.system == "nbd" && s.n == 1 && s.kind != demand
	if nbd1 == 0 && !isBaseline && s.kind != demand {
		var err error
		if nbd1, err = b.glance(ctx, s); err != nil {
			return figures.Row{}, fmt.Errorf("measure NBD for comparison: %w", err)
		}
	}
	var runs []result
	for range s.runs {
		r, err := b.options.measure(ctx, s, b.payload)
		if err != nil {
			return figures.Row{}, err
		}
		runs = append(runs, r)
	}
	if isBaseline {
		nbd1 = mean(median(runs).speeds)
		b.nbd1[s.mbit] = nbd1
	}
	return s.row(runs, nbd1), nil
}

// glance measures the speed of NBD that s is compared with when the plan has
// no such row before it.
func (b *bench) glance(ctx context.Context, s spec) (float64, error) {
	base := spec{system: "nbd", kind: s.kind, n: 1, mbit: s.mbit, size: s.size, start: figures.Simultaneous, runs: 1}
	if s.kind == spread && s.fileTime() > glance {
		base.window = glance
	}
	r, err := b.options.measure(ctx, base, b.payload)
	if err != nil {
		return 0, err
	}
	b.nbd1[s.mbit] = mean(r.speeds)
	return b.nbd1[s.mbit], nil
}

// fit makes the file for s, smaller than planned if memory does not hold it
// once for each node.
func (b *bench) fit(s *spec) error {
	free, err := process.MemoryAvailable()
	if err != nil {
		return err
	}
	if b.payload != nil {
		free += int64(len(b.payload.bytes))
	}
	const eachProcess, spare = 60 << 20, 512 << 20
	nodes := int64(s.n)
	if s.kind == demand {
		nodes = 0
	}
	if most := (free-spare)/(nodes+1) - eachProcess; most < s.size {
		s.size = max(most/(1<<20)<<20, 1<<20)
		fmt.Fprintf(b.options.Print, "# %s: memory holds a file of %d MB only\n", s.name(), s.size/1e6)
	}
	if b.payload != nil && int64(len(b.payload.bytes)) == s.size {
		return nil
	}
	b.dropPayload()
	b.payload, err = newPayload(b.options.scratch, s.size)
	return err
}

func (b *bench) dropPayload() {
	if b.payload != nil {
		b.payload.remove() // the whole tmpfs goes in the end
		b.payload = nil
	}
}

// write keeps the results so far.
func (b *bench) write() error {
	rows, err := figures.Encode(b.rows)
	if err != nil {
		return err
	}
	table := figures.Markdown(b.rows, b.failed, b.bed, b.begin)
	return errors.Join(
		durable.WriteFile(filepath.Join(b.options.Out, rowsFile), rows, 0o644),
		durable.WriteFile(filepath.Join(b.options.Out, tableFile), []byte(table), 0o644),
		durable.WriteFile(filepath.Join(b.options.Out, pictureFile), figures.Picture(b.rows), 0o644))
}

// Publish copies the results of the last run into the directory docs, if it has
// all rows of our own; what could not be measured of others the table says.
func Publish(out, docs string) error {
	data, err := os.ReadFile(filepath.Join(out, rowsFile))
	if err != nil {
		return fmt.Errorf("publish: %w; run the benchmark first", err)
	}
	var rows []figures.Row
	if err := json.Unmarshal(data, &rows); err != nil {
		return fmt.Errorf("publish: %s: %w", rowsFile, err)
	}
	ours, want := 0, 0
	for _, r := range rows {
		if r.System == "vfield" {
			ours++
		}
	}
	for _, s := range plan(false) {
		if s.system == "vfield" {
			want++
		}
	}
	if ours < want {
		return fmt.Errorf("publish: the last run has %d rows of vfield, want %d: run the whole benchmark, ./build.sh bench", ours, want)
	}
	if err := os.MkdirAll(docs, 0o755); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for _, name := range []string{rowsFile, tableFile, pictureFile} {
		data, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			return fmt.Errorf("publish: %w; run the benchmark first", err)
		}
		if err := durable.WriteFile(filepath.Join(docs, name), data, 0o644); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}
