package bootbench

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/bench/figures"
	"viver.lan/qemu-tests/harness"
)

// column is one column of a table.
type column struct {
	head, long string // on the terminal, where it may be left out, and on the page
	cell       func(Row) string
}

func number(v figures.Value, unit float64, format string) string {
	if v.Missing() {
		return "-"
	}
	return fmt.Sprintf(format, float64(v)/unit)
}

func seconds(get func(Row) figures.Value) func(Row) string {
	return func(r Row) string { return number(get(r), 1, "%.1f") }
}

func megabytes(get func(Row) figures.Value) func(Row) string {
	return func(r Row) string { return number(get(r), 1e6, "%.1f") }
}

func percent(get func(Row) figures.Value) func(Row) string {
	return func(r Row) string { return number(get(r), 0.01, "%.0f %%") }
}

// columns of a boot, in their order.
func columns() []column {
	return []column{
		{"on-kernel", "power-on to kernel, s", seconds(func(r Row) figures.Value { return r.OnToKernel })},
		{"kernel-init", "kernel to init, s", seconds(func(r Row) figures.Value { return r.KernelToInit })},
		{"init-login", "init to login, s", seconds(func(r Row) figures.Value { return r.InitToLogin })},
		{"on-login", "power-on to login, s", seconds(func(r Row) figures.Value { return r.OnToLogin })},
		{"", "fastest to slowest", func(r Row) string {
			return number(r.Fastest, 1, "%.1f") + "–" + number(r.Slowest, 1, "%.1f")
		}},
		{"boot MB", "boot files, MB", megabytes(func(r Row) figures.Value { return r.BootFileBytes })},
		{"root MB", "root, MB", megabytes(func(r Row) figures.Value { return r.RootBytes })},
		{"read MB", "read of the device, MB", megabytes(func(r Row) figures.Value { return r.RootReadBytes })},
		{"reads", "in reads", func(r Row) string { return number(r.RootReads, 1, "%.0f") }},
		{"CPU s", "CPU until login, s", seconds(func(r Row) figures.Value { return r.CPU })},
		{"@vfield", "of it @vfield", percent(func(r Row) figures.Value { return r.VFieldShare })},
		{"MiB", "memory used, MiB", func(r Row) string { return number(r.MemoryUsed, 1, "%.0f") }},
		{"first", "first node, CPU of the host, s", seconds(func(r Row) figures.Value { return r.FirstNodeCPU })},
		{"others", "host busy with others", percent(func(r Row) figures.Value { return r.OthersBusy })},
	}
}

// roomColumns are those of a room.
func roomColumns() []column {
	return []column{
		{"", "machines", func(r Row) string { return fmt.Sprint(r.Machines) }},
		{"", "first login, s", seconds(func(r Row) figures.Value { return r.FirstLogin })},
		{"", "last login, s", seconds(func(r Row) figures.Value { return r.LastLogin })},
		{"", "last / first", func(r Row) string { return number(r.LastLogin/r.FirstLogin, 1, "%.2f") }},
		{"", "first node sent until then, MB", megabytes(func(r Row) figures.Value { return r.FirstNodeBytes })},
		{"", "root image, MB", megabytes(func(r Row) figures.Value { return r.ImageBytes })},
		{"", "independent of the first node, s after the last login", seconds(func(r Row) figures.Value { return r.Independent })},
		{"", "host busy with others", percent(func(r Row) figures.Value { return r.OthersBusy })},
	}
}

const nameWidth = 18

func terminalHead() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", nameWidth, "")
	for _, c := range terminalColumns() {
		fmt.Fprintf(&b, " %*s", width(c), c.head)
	}
	return b.String() + "\n"
}

// terminalColumns are those that a single run has.
func terminalColumns() []column {
	return slices.DeleteFunc(columns(), func(c column) bool { return c.head == "" })
}

func width(c column) int { return max(7, len(c.head)) }

func terminalLine(r Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", nameWidth, r.Name)
	if r.System == Room {
		for _, c := range roomColumns() {
			fmt.Fprintf(&b, " %s: %s;", c.long, c.cell(r))
		}
		return strings.TrimSuffix(b.String(), ";") + "\n"
	}
	for _, c := range terminalColumns() {
		fmt.Fprintf(&b, " %*s", width(c), c.cell(r))
	}
	return b.String() + "\n"
}

// markdown is the result as a page.
func markdown(rows []Row, failed, notes []string, bed string, begin time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Boots of %s\n\n%s. [README.md](README.md#how-a-boot-is-measured) explains the columns.\n", begin.Format("2 January 2006, 15:04"), bed)
	table(&b, rows, columns(), func(r Row) bool { return r.System != Room })
	table(&b, rows, roomColumns(), func(r Row) bool { return r.System == Room })
	processorTable(&b, rows)
	for _, f := range failed {
		fmt.Fprintf(&b, "\nNot measured: %s\n", f)
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	b.WriteString(verdict(rows).Markdown())
	return b.String()
}

func table(b *strings.Builder, rows []Row, columns []column, belongs func(Row) bool) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !belongs(r) })
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n| row |")
	for _, c := range columns {
		b.WriteString(" " + c.long + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(columns)) + "\n")
	for _, r := range rows {
		b.WriteString("| " + r.Name + " |")
		for _, c := range columns {
			b.WriteString(" " + c.cell(r) + " |")
		}
		b.WriteString("\n")
	}
}

// processorTable has the programs that used the most.
func processorTable(b *strings.Builder, rows []Row) {
	const most = 12
	sum := map[string]float64{}
	var shown []Row
	for _, r := range rows {
		if r.System != Room {
			shown = append(shown, r)
		}
		for name, s := range r.CPUOf {
			sum[name] = max(sum[name], float64(s))
		}
	}
	if len(sum) == 0 {
		return
	}
	programs := slices.SortedFunc(maps.Keys(sum), func(a, b string) int {
		return cmp.Or(cmp.Compare(sum[b], sum[a]), strings.Compare(a, b))
	})
	b.WriteString("\nCPU seconds until login, by process:\n\n| process |")
	for _, r := range shown {
		b.WriteString(" " + r.Name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(shown)) + "\n")
	for _, name := range programs[:min(most, len(programs))] {
		b.WriteString("| " + name + " |")
		for _, r := range shown {
			v, ok := r.CPUOf[name]
			if !ok {
				v = figures.None()
			}
			b.WriteString(" " + number(v, 1, "%.1f") + " |")
		}
		b.WriteString("\n")
	}
}

// bed says on what the figures were made.
func bed(ctx context.Context, accel string) string {
	var u unix.Utsname
	_ = unix.Uname(&u) // empty if it fails
	version := ""
	if out, err := exec.CommandContext(ctx, harness.QEMU, "--version").Output(); err == nil {
		version, _, _ = strings.Cut(string(out), "\n")
	}
	cpu := "processors"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d × %s, Linux %s, %s under %s, %d MiB a machine", runtime.NumCPU(), cpu, unix.ByteSliceToString(u.Release[:]), version, accel, memory)
}
