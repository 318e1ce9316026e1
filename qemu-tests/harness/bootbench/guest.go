package bootbench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"viver.lan/internal/cputime"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
)

// guest is what the booted system tells of its boot.
type guest struct {
	kernel     time.Time     // when its kernel began to count, by the host's clock
	init       time.Duration // after that
	busy       float64       // processor seconds
	processes  []execproto.Process
	reads      float64 // of the root's device
	readBytes  float64
	memoryUsed float64 // MiB
}

// ask asks the agent, what goes on counting first.
func ask(ctx context.Context, vm *harness.VM, device string) (g guest, err error) {
	read := func(file string) (text string) {
		if err == nil {
			text, err = vm.Run(ctx, execproto.CmdRead, file)
		}
		return text
	}
	if _, err := vm.WaitReady(ctx); err != nil {
		return g, err
	}
	stat := read("/proc/stat")
	if err != nil {
		return g, err
	}
	list, err := vm.Run(ctx, execproto.CmdProcesses)
	if err != nil {
		return g, err
	}
	before := time.Now()
	uptime := read("/proc/uptime")
	middle := before.Add(time.Since(before) / 2)
	disks, meminfo := read("/proc/diskstats"), read("/proc/meminfo")
	if err != nil {
		return g, err
	}
	manager, err := vm.Run(ctx, "systemctl", "show", "--property=UserspaceTimestampMonotonic", "--value")
	if err != nil {
		return g, err
	}
	return parseGuest(middle, uptime, stat, disks, device, meminfo, list, manager)
}

func parseGuest(at time.Time, uptime, stat, disks, device, meminfo, list, manager string) (g guest, err error) {
	seconds, _, _ := strings.Cut(uptime, " ")
	up, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return g, fmt.Errorf("/proc/uptime of the guest: %w", err)
	}
	g.kernel = at.Add(-time.Duration(up * float64(time.Second)))
	micro, err := strconv.ParseInt(strings.TrimSpace(manager), 10, 64)
	if err != nil {
		return g, fmt.Errorf("when systemd started in the guest: %w", err)
	}
	g.init = time.Duration(micro) * time.Microsecond
	times, err := cputime.Parse([]byte(stat))
	if err != nil {
		return g, err
	}
	g.busy = times.Seconds()
	if g.reads, g.readBytes, err = deviceReads(disks, device); err != nil {
		return g, err
	}
	if g.memoryUsed, err = usedMiB(meminfo); err != nil {
		return g, err
	}
	g.processes, err = processes(list)
	return g, err
}

// deviceReads finds a device in proc_diskstats(5): reads completed, and sectors
// of 512 bytes.
func deviceReads(disks, device string) (reads, bytes float64, err error) {
	for line := range strings.Lines(disks) {
		f := strings.Fields(line)
		if len(f) < 6 || f[2] != device {
			continue
		}
		if reads, err = strconv.ParseFloat(f[3], 64); err != nil {
			return 0, 0, fmt.Errorf("/proc/diskstats: %w", err)
		}
		sectors, err := strconv.ParseFloat(f[5], 64)
		return reads, sectors * 512, err
	}
	return 0, 0, fmt.Errorf("the guest has no device %s", device)
}

// usedMiB is the memory that proc_meminfo(5) does not call available.
func usedMiB(meminfo string) (float64, error) {
	kb := map[string]float64{}
	for line := range strings.Lines(meminfo) {
		name, value, _ := strings.Cut(line, ":")
		n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err == nil {
			kb[name] = n
		}
	}
	if kb["MemTotal"] == 0 {
		return 0, fmt.Errorf("/proc/meminfo has no MemTotal: %.80q", meminfo)
	}
	return (kb["MemTotal"] - kb["MemAvailable"]) / 1024, nil
}

func processes(list string) (all []execproto.Process, err error) {
	lines := bufio.NewScanner(strings.NewReader(list))
	lines.Buffer(nil, execproto.MaxOutput)
	for lines.Scan() {
		var p execproto.Process
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("processes of the guest: %w", err)
		}
		all = append(all, p)
	}
	return all, lines.Err()
}

// Names for what is no single process.
const (
	kernelThreads = "kernel threads"
	endedOnes     = "ended, interrupts" // what is left of the sum
)

// byProcess is the processor time by program, and what is left of it: programs
// that have ended, and the kernel's own work.
func (g guest) byProcess() map[string]float64 {
	left := g.busy
	by := map[string]float64{}
	for _, p := range g.processes {
		name := kernelThreads
		if len(p.Argv) > 0 {
			name, _, _ = strings.Cut(path.Base(p.Argv[0]), " ")
			name = strings.TrimSuffix(name, ":")
		}
		by[name] += p.Seconds
		left -= p.Seconds
	}
	by[endedOnes] = max(left, 0)
	return by
}
