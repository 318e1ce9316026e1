// Package cputime tells how much of this machine's processors is in use.
package cputime

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Times is what all CPUs together have done since the machine started, in
// ticks (proc_stat(5)).
type Times struct{ idle, total float64 }

// Read reads /proc/stat.
func Read() (Times, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Times{}, err
	}
	return parse(data)
}

func parse(stat []byte) (t Times, err error) {
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

// Busy is the share of the machine that was in use between two readings, 0 when no
// time has passed.
func Busy(before, after Times) float64 {
	total := after.total - before.total
	if total <= 0 {
		return 0
	}
	return 1 - (after.idle-before.idle)/total
}
