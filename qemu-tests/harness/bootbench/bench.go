// Package bootbench measures how long a machine takes from power-on to login,
// beside what one would use instead: the same tree on a local disk, a root over
// NBD, live-boot. And how long a room takes that is switched on together.
//
// All machines are virtual ones of package harness, one after the other and all
// but their root alike. VIVER's machines boot from a first node, which is a
// machine itself; the others from a server on the host, which is faster.
//
// The invariant: a row is measured in one piece, and a row that could not be
// measured is named, not left out in silence.
package bootbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
)

// Options say what is measured and where things are.
type Options struct {
	Quick bool
	Only  []string // names of rows; all if empty
	Runs  int      // of each row; 0: as planned
	// Again keeps the rows of the last result that are not measured.
	Again bool
	// Images has a directory for each image, Media an ISO, named like it, with
	// the tests' agent. Baselines is what qemu-tests/baselines/build.sh made.
	Images, Media, Baselines string
	// Agent is the program of that agent.
	Agent    string
	Out      string // results and logs
	Print    io.Writer
	Terminal bool
}

func (o *Options) image(name, file string) string { return filepath.Join(o.Images, name, file) }

func (o *Options) medium(name string) string { return filepath.Join(o.Media, name+".iso") }

// bench is one run of the benchmark.
type bench struct {
	options  Options
	progress *progress
	log      io.Writer
	notes    []string
	bed      string // on what it is measured
	begin    time.Time
	// agentBytes is the size of the agent's program.
	agentBytes int64
}

// dir is where a row's console logs, events and captures are.
func (b *bench) dir(s spec) string {
	return filepath.Join(b.options.Out, "log", strings.ReplaceAll(s.name, ":", "-"))
}

// logf writes what is for those who look closer.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(b.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// note is for everyone who reads the result.
func (b *bench) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.logf("%s", text)
	first, _, _ := strings.Cut(text, "\n")
	b.notes = append(b.notes, first)
	b.progress.step("%s", text)
}

// Check tells whether all rows exist that are asked for.
func Check(o Options) error {
	_, err := choose(o.Only, o.Runs)
	return err
}

// Run measures the chosen rows and writes them, the table and the picture into
// o.Out, also those that are there when ctx ends.
func Run(ctx context.Context, o Options) error {
	if o.Quick {
		o.Only = append(o.Only, quick()...)
		if o.Runs == 0 {
			o.Runs = 1
		}
	}
	specs, err := choose(o.Only, o.Runs)
	if err != nil {
		return err
	}
	if err := errors.Join(o.check(specs), os.MkdirAll(o.Out, 0o755)); err != nil {
		return err
	}
	agent, err := os.Stat(o.Agent)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(o.Out, "boot.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b := &bench{options: o, log: log, progress: &progress{out: o.Print, terminal: o.Terminal}, agentBytes: agent.Size()}
	accel, why := harness.Accelerator(ctx, harness.QEMU)
	why, _, _ = strings.Cut(why, "\n")
	fmt.Fprintf(o.Print, "machines run under %s: %s\nthe measurement takes about %d minutes; details are in %s\n%s",
		accel, why, minutes(specs, accel), filepath.Join(o.Out, "boot.log"), terminalHead())
	b.bed, b.begin = bed(ctx, accel), time.Now()
	kept, err := b.kept(specs)
	if err != nil {
		return err
	}
	stop := b.progress.run()
	rows, failed, err := b.rows(ctx, specs, kept)
	stop()
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		fmt.Fprintf(o.Print, "\n%srows, table and picture: %s\n", verdict(rows).Text(), o.Out)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("ended before all was measured: %w", context.Cause(ctx))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d rows could not be measured: %s; see %s", len(failed), len(specs), strings.Join(failed, "; "), filepath.Join(o.Out, "log"))
	}
	return nil
}

// kept returns the rows of the last result that are not to be measured again, and notes
// which those are that are.
func (b *bench) kept(specs []spec) ([]Row, error) {
	if !b.options.Again {
		return nil, nil
	}
	last, err := readRows(b.options.Out)
	if err != nil {
		return nil, err
	}
	b.note("Measured by themselves, after the others: %s.", strings.Join(names(specs), ", "))
	return slices.DeleteFunc(last, func(r Row) bool { return slices.Contains(names(specs), r.Name) }), nil
}

// rows measures, and writes the result after each row, those of before included; what
// fails is in failed, a sentence for each row.
func (b *bench) rows(ctx context.Context, specs []spec, rows []Row) (_ []Row, failed []string, err error) {
	for _, s := range specs {
		runs, err := b.measure(ctx, s)
		if ctx.Err() != nil && len(runs) < s.runs {
			return rows, failed, nil // half a row is none
		}
		if len(runs) > 0 {
			rows = inOrder(append(rows, median(runs))) // of those that ended well
		}
		if err != nil {
			b.logf("%s: %v", s.name, err)
			text, _, _ := strings.Cut(err.Error(), "\n")
			failed = append(failed, s.name+": "+text)
			b.progress.step("%s could not be measured: %v", s.name, err)
		}
		if err := b.write(rows, failed); err != nil {
			return rows, failed, err
		}
	}
	return rows, failed, nil
}

// check finds what is missing before anything is booted.
func (o *Options) check(specs []spec) error {
	need := map[string]bool{o.Agent: true}
	for _, s := range specs {
		switch {
		case s.system == Room:
			need[o.medium(s.image)] = true
			need[o.image(s.image, "root.squashfs")] = true
		case s.system == VIVER:
			need[o.medium("debian")] = true
		default:
			need[filepath.Join(o.Baselines, "initrd-"+s.system+".img")] = true
			need[o.image("debian", manifest.File)] = true
		}
	}
	for path := range need {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w; ./build.sh bench boot makes it", err)
		}
	}
	return nil
}

// minutes is a guess at how long it takes.
func minutes(specs []spec, accel string) int {
	seconds := 0
	for _, s := range specs {
		seconds += 60 * s.runs
		if s.system == VIVER || s.system == Room {
			seconds += 120 + 40*s.runs + 30*(s.n-1)
		}
	}
	if accel == "kvm" {
		seconds /= 3
	}
	return max(1, seconds/60)
}

// Files of the result.
const (
	rowsFile    = "boot.json"
	tableFile   = "boot.md"
	pictureFile = "boot.svg"
)

func (b *bench) write(rows []Row, failed []string) error {
	data, err := figures.Encode(rows)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{rowsFile: data, tableFile: []byte(markdown(rows, failed, b.notes, b.bed, b.begin)), pictureFile: picture(rows)} {
		if err := durable.WriteFile(filepath.Join(b.options.Out, name), data, 0o644); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	return nil
}
