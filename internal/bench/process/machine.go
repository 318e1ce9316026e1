package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// CPUTimes is what all CPUs together have done since the machine started, in
// ticks (proc_stat(5)).
type CPUTimes struct{ idle, total float64 }

// ReadCPUTimes reads /proc/stat.
func ReadCPUTimes() (CPUTimes, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return CPUTimes{}, err
	}
	return parseCPUTimes(data)
}

func parseCPUTimes(stat []byte) (t CPUTimes, err error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return t, fmt.Errorf("/proc/stat begins with %q, want the sum of all CPUs", line)
	}
	// Guest time, from the 9th on, is part of user time already.
	for i, f := range fields[1:9] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %w", err)
		}
		t.total += n
		if i == 3 || i == 4 { // idle and iowait
			t.idle += n
		}
	}
	return t, nil
}

// Busy is the share of the machine that was in use between two readings.
func Busy(before, after CPUTimes) float64 {
	total := after.total - before.total
	if total <= 0 {
		return 0
	}
	return 1 - (after.idle-before.idle)/total
}

// MemoryAvailable returns the bytes that can be used without swapping.
func MemoryAvailable() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo does not say MemAvailable: %w", lines.Err())
}

// Strangers says which versions of other people's programs are measured.
func Strangers(ctx context.Context) string {
	var out []string
	for _, argv := range [][]string{
		{"nbdkit", "--version"}, {"nbdcopy", "--version"},
		{"/usr/bin/python3", "-c", "import libtorrent; print('libtorrent', libtorrent.version)"},
	} {
		text, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
		if line, _, _ := strings.Cut(string(text), "\n"); err == nil {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(append(out, "anacrolix/torrent "+moduleVersion("github.com/anacrolix/torrent")), ", ")
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "of unknown version"
}

// Machine says on what was measured.
func Machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("unknown")
	}
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), model, bytes.TrimSpace(release), runtime.Version())
}
