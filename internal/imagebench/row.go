package imagebench

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/cputime"
)

// What is measured of each source.
const (
	Plain = "mksquashfs" // that alone
	Root  = "root"       // the root file system as an image has it
	Image = "image"      // everything: viver image build
)

// Row is what one command took: of several runs, those of the median.
type Row struct {
	Source string `json:"source"` // archive or directory
	Task   string `json:"task"`
	// Seconds from start to end, and those of the fastest and the slowest run.
	Seconds float64 `json:"s"`
	Fastest float64 `json:"min_s"`
	Slowest float64 `json:"max_s"`
	// CPU seconds, user and system, of all its processes.
	CPU float64 `json:"cpu_s"`
	// Peak is the memory of its largest process, in MiB.
	Peak float64 `json:"peak_mib"`
	// RootBytes is the size of the squashfs.
	RootBytes int64 `json:"root_bytes"`
	// OthersBusy is the share of the machine's processors that others used meanwhile.
	OthersBusy float64 `json:"others_busy"`
	Runs       int     `json:"runs"`
}

// Name tells rows apart.
func (r Row) Name() string { return r.Source + ":" + r.Task }

// median is the run whose time is in the middle, the slower one of an even number.
func median(runs []Row) Row {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b Row) int { return cmp.Compare(a.Seconds, b.Seconds) })
	r := sorted[len(sorted)/2]
	r.Fastest, r.Slowest, r.Runs = sorted[0].Seconds, sorted[len(sorted)-1].Seconds, len(sorted)
	return r
}

// table has a line for each row, for a page or the terminal.
func table(rows []Row, page bool) string {
	var b strings.Builder
	if page {
		b.WriteString("| source | task | time, s | fastest to slowest | time of processors, s | largest process, MiB | root, MB | machine busy with others | runs |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f–%.1f | %.1f | %.0f | %.1f | %.0f %% | %d |\n",
				r.Source, r.Task, r.Seconds, r.Fastest, r.Slowest, r.CPU, r.Peak, float64(r.RootBytes)/1e6, 100*r.OthersBusy, r.Runs)
		}
		return b.String()
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "source\ttask\ts\tCPU s\tMiB\troot MB\tothers\t")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%.0f\t%.1f\t%.0f %%\t\n", r.Source, r.Task, r.Seconds, r.CPU, r.Peak, float64(r.RootBytes)/1e6, 100*r.OthersBusy)
	}
	w.Flush() // into memory
	return b.String()
}

// busy is what the processors of this machine have done when a command begins.
type busy struct {
	times cputime.Times
	at    time.Time
}

func readBusy() (busy, error) {
	times, err := cputime.Read()
	return busy{times, time.Now()}, err
}

// others is the share of the machine that others used since, while own was ours.
func (b busy) others(own time.Duration) (float64, error) {
	now, err := readBusy()
	all := now.at.Sub(b.at).Seconds() * float64(runtime.NumCPU())
	return max(0, now.times.Seconds()-b.times.Seconds()-own.Seconds()) / max(all, 1e-9), err
}

// describe says on what machine and of what tree an image was made.
func describe(tree string) (string, error) {
	var u unix.Utsname
	fi, err := os.Stat(tree)
	if err = cmp.Or(err, unix.Uname(&u)); err != nil {
		return "", err
	}
	cpu := "processors"
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d × %s, Linux %s, a tree of %d MB", runtime.NumCPU(), cpu, unix.ByteSliceToString(u.Release[:]), fi.Size()/1e6), nil
}
