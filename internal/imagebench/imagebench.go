// Package imagebench measures what making an image takes, beside mksquashfs(1) alone on
// the same tree: time, processor time and memory, from an archive and from a directory.
//
// It measures whole programs and knows nothing of what they do inside. The invariant:
// what is compared took turns within one run, on the same tree, with the same settings.
package imagebench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/durable"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/rootfs"
)

// Files of a result.
const (
	rowsFile  = "image.json"
	tableFile = "image.md"
)

// RootVerb is the verb by which the program of a benchmark runs WriteRoot, in a process
// whose time and memory are those of the root file system alone.
const RootVerb = "root"

// defaultRuns is how often each row is measured.
const defaultRuns = 3

// Options say what to measure.
type Options struct {
	// Tree is an uncompressed tar archive of an installed Linux. It is unpacked for
	// what is measured of a directory.
	Tree string
	// Viver is the program to measure, and Lib the parts that belong to it.
	Viver, Lib string
	// Self is the program that has the verb RootVerb.
	Self string
	// Out is the directory for results. Images lie there while they are made.
	Out string
	// Level is viver's zstd level of the root file system.
	Level int
	// Runs of each row, 0 for defaultRuns.
	Runs int
	// Print receives a line for each thing that was measured, and the table.
	Print io.Writer
}

// WriteRoot makes the root file system of an image, and nothing else of it.
func WriteRoot(ctx context.Context, source, out string, level int) error {
	tree, err := imagetree.Scan(ctx, source, nil)
	if err != nil {
		return err
	}
	defer tree.Close()
	return rootfs.Write(ctx, tree, out, rootfs.Options{Level: level}, func(int64, int64) {})
}

// Run measures, and writes the result to Options.Out.
func Run(ctx context.Context, o Options) error {
	if o.Runs == 0 {
		o.Runs = defaultRuns
	}
	b := bench{o: o, work: filepath.Join(o.Out, "work"), runs: make(map[string][]Row)}
	if err := os.RemoveAll(b.work); err != nil { // of a run that was killed
		return err
	}
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return err
	}
	err := b.measure(ctx)
	return errors.Join(err, os.RemoveAll(b.work))
}

type bench struct {
	o    Options
	work string
	runs map[string][]Row // of each row, by its name
}

// source is what an image is made of.
type source struct {
	kind, path string
}

func (b *bench) measure(ctx context.Context) error {
	begin := time.Now()
	sources, err := b.sources(ctx)
	if err != nil {
		return err
	}
	var order []string
	for run := range b.o.Runs {
		for _, s := range sources {
			for _, c := range b.commands(s) {
				row, err := b.once(ctx, s, c)
				if err != nil {
					return fmt.Errorf("%s of the %s: %w", c.task, s.kind, err)
				}
				if run == 0 {
					order = append(order, row.Name())
				}
				b.runs[row.Name()] = append(b.runs[row.Name()], row)
				fmt.Fprintf(b.o.Print, "run %d of %d: %-9s %-10s %6.1f s, %6.1f s of processors, %4.0f MiB, others busy %.0f %%\n",
					run+1, b.o.Runs, s.kind, c.task, row.Seconds, row.CPU, row.Peak, 100*row.OthersBusy)
			}
		}
	}
	var rows []Row
	for _, name := range order {
		rows = append(rows, median(b.runs[name]))
	}
	return b.write(rows, begin)
}

// sources unpacks the archive, and reads both once: what is measured first shall find
// them in memory, as what is measured last does.
func (b *bench) sources(ctx context.Context) ([]source, error) {
	archive, dir := source{"archive", b.o.Tree}, source{"directory", filepath.Join(b.work, "tree")}
	if err := os.Mkdir(dir.path, 0o755); err != nil {
		return nil, err
	}
	// An ordinary user makes no devices, and an image has none of /dev.
	fmt.Fprintf(b.o.Print, "unpacking %s\n", b.o.Tree)
	if err := hosttool.Run(ctx, nil, "tar", "--extract", "--file", b.o.Tree, "--directory", dir.path, "--exclude", "./dev/*"); err != nil {
		return nil, err
	}
	return []source{archive, dir}, nil
}

// command is a program that is measured.
type command struct {
	task  string
	stdin string // a file; "" for none
	out   string // what it makes
	size  string // the file, that or in that, whose size is told
	args  []string
}

// commands of one source: what anybody would do who has no viver comes first.
func (b *bench) commands(s source) []command {
	image, squashfs := filepath.Join(b.work, "image"), filepath.Join(b.work, "squashfs")
	plain := command{task: Plain, out: squashfs, size: squashfs, args: []string{"mksquashfs", s.path, squashfs}}
	if s.kind == "archive" {
		plain.args, plain.stdin = []string{"mksquashfs", "-", squashfs, "-tar"}, s.path
	}
	plain.args = append(plain.args, "-comp", "zstd", "-Xcompression-level", strconv.Itoa(b.o.Level), "-noappend", "-no-progress", "-quiet")
	return []command{
		plain,
		{task: Root, out: squashfs, size: squashfs, args: []string{b.o.Self, RootVerb, s.path, squashfs}},
		{task: Image, out: image, size: filepath.Join(image, "root.squashfs"),
			args: []string{b.o.Viver, "image", "build", s.path, "-o", image, "--lib", b.o.Lib, "--key", filepath.Join(b.work, "owner.key")}},
	}
}

// once runs a command and measures it: all that it started counts as its own.
func (b *bench) once(ctx context.Context, s source, c command) (Row, error) {
	if err := os.RemoveAll(c.out); err != nil {
		return Row{}, err
	}
	if err := flush(b.work); err != nil {
		return Row{}, err
	}
	program, err := hosttool.Find(c.args[0])
	if err != nil {
		return Row{}, err
	}
	cmd := exec.CommandContext(ctx, program, c.args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if c.stdin != "" {
		f, err := os.Open(c.stdin)
		if err != nil {
			return Row{}, err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	busy, err := readBusy()
	if err != nil {
		return Row{}, err
	}
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return Row{}, errors.Join(ctx.Err(), fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.Bytes())))
	}
	took := time.Since(begin)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	others, err := busy.others(cpu)
	if err != nil {
		return Row{}, err
	}
	fi, err := os.Stat(c.size)
	if err != nil {
		return Row{}, err
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss // of the largest process, in KiB
	return Row{Source: s.kind, Task: c.task, Seconds: took.Seconds(), CPU: cpu.Seconds(), Peak: float64(peak) / 1024,
		RootBytes: fi.Size(), OthersBusy: others}, nil
}

// flush writes out what earlier commands left to be written, which would slow down the
// next one.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// write puts the result into its files and shows it.
func (b *bench) write(rows []Row, begin time.Time) error {
	fmt.Fprintf(b.o.Print, "\n%s\n%s", table(rows, false), verdict(rows).Text())
	bed, err := describe(b.o.Tree)
	if err != nil {
		return err
	}
	page := fmt.Sprintf("# An image of %s\n\n%s. [README.md](README.md#how-making-an-image-is-measured) explains the columns.\n\n%s%s",
		begin.Format("2 January 2006, 15:04"), bed, table(rows, true), verdict(rows).Markdown())
	data, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(
		durable.WriteFile(filepath.Join(b.o.Out, rowsFile), append(data, '\n'), 0o644),
		durable.WriteFile(filepath.Join(b.o.Out, tableFile), []byte(page), 0o644))
}

// Publish copies the last result into the directory docs.
func Publish(out, docs string) error {
	for _, name := range []string{rowsFile, tableFile} {
		data, err := os.ReadFile(filepath.Join(out, name))
		if err == nil {
			err = durable.WriteFile(filepath.Join(docs, name), data, 0o644)
		}
		if err != nil {
			return fmt.Errorf("publish: %w; run the benchmark first: ./build.sh bench image", err)
		}
	}
	return nil
}

// verdict holds the rows against the aims.
func verdict(rows []Row) (out figures.Lines) {
	plain := make(map[string]Row)
	for _, r := range rows {
		if r.Task == Plain {
			plain[r.Source] = r
		}
	}
	for _, r := range rows {
		of, ok := plain[r.Source]
		if bound := map[string]float64{Root: 1.15, Image: 1.5}[r.Task]; ok && bound != 0 {
			out = append(out, figures.Line{What: fmt.Sprintf("%s of the %s / mksquashfs, time", r.Task, r.Source), Value: r.Seconds / of.Seconds, AtMost: true, Aim: bound, Land: bound},
				figures.Line{What: fmt.Sprintf("%s of the %s / mksquashfs, time of processors", r.Task, r.Source), Value: r.CPU / of.CPU, AtMost: true, Aim: bound, Land: bound})
		}
	}
	return out
}
