// Package cputime tells how much of a machine's processors is in use.
package cputime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Times is what all CPUs together have done since the machine started, in
// ticks (proc_stat(5)).
type Times struct{ idle, stolen, total float64 }

// perSecond is how many ticks the kernel counts in a second for programs (USER_HZ).
const perSecond = 100

// maxSum is more bytes than the first line has, which is all that is needed.
const maxSum = 256

// Reader reads this machine's times again and again. It keeps /proc/stat open, because
// to open it and to read it to its end takes longer than the sum of all CPUs, and may be
// done often while a machine boots. It is for one goroutine.
//
// /proc/uptime is shorter still, but takes time in which a CPU waits for a disk for
// busy, and before Linux 5.16 does not count a CPU that sleeps for long until it wakes.
type Reader struct {
	stat *os.File
	line [maxSum]byte
}

// Open returns a Reader; it has to be closed.
func Open() (*Reader, error) {
	stat, err := os.Open("/proc/stat")
	if err != nil {
		return nil, err
	}
	return &Reader{stat: stat}, nil
}

// Read returns what the CPUs have done until now.
func (r *Reader) Read() (Times, error) {
	n, err := r.stat.ReadAt(r.line[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Times{}, err
	}
	return Parse(r.line[:n])
}

// Close ends the Reader.
func (r *Reader) Close() error { return r.stat.Close() }

// Read reads this machine's times once.
func Read() (Times, error) {
	r, err := Open()
	if err != nil {
		return Times{}, err
	}
	defer r.Close()
	return r.Read()
}

// Parse reads a /proc/stat, which may be another machine's.
func Parse(stat []byte) (t Times, err error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return t, fmt.Errorf("/proc/stat begins with %q, want the sum of all CPUs", line)
	}
	// Guest time, from the 9th on, is part of user time already.
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %w", err)
		}
		t.total += float64(n)
		switch i {
		case 3, 4: // idle and iowait
			t.idle += float64(n)
		case 7: // what the machine's host had for others
			t.stolen += float64(n)
		}
	}
	return t, nil
}

// Seconds is how long CPUs have worked, for all of them together.
func (t Times) Seconds() float64 { return (t.total - t.idle - t.stolen) / perSecond }

// Busy is the share of the machine that was in use between two readings, 0 when no
// time has passed.
func Busy(before, after Times) float64 {
	total := after.total - before.total
	if total <= 0 {
		return 0
	}
	return 1 - (after.idle-before.idle)/total
}
