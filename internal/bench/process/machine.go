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
