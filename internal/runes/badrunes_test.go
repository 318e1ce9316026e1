package runes

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// What a template can do to the boot: nothing but fail.
func TestRunawayTemplates(t *testing.T) {
	for source, want := range map[string]string{
		`{{ define "a" }}{{ template "b" }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}{{ template "a" }}`: "exceeded maximum template depth",
		`{{ printf "%05000000d" 0 }}`:    "the result is larger than",
		`{{ index .DNS 99 }}`:            "index out of range",
		`{{ (index .Members 0).Nobody}}`: "Nobody",
	} {
		facts := testFacts()
		facts.Members = []MemberFact{{Hostname: "a", Address: "10.77.0.1"}}
		where := image(t, map[string]string{"etc/x": "of the image"})
		r := apply(t, where, one(t, bundle(`name = "a"`, "files/etc/x.tmpl", source, "files/etc/y", "y")), facts)["a"]
		if r.Outcome != Degraded || !strings.Contains(r.Reason, want) || read(t, where, "/etc/x") != "of the image" || read(t, where, "/etc/y") != "y" {
			t.Errorf("%s: %+v, want %q, and /etc/x is %q", source, r, want, read(t, where, "/etc/x"))
		}
	}
}

// A hook that prints without end, fills the disk, or forks and hangs costs its own rune
// what it was for, and the boot some time: the other runes are laid.
func TestNetnsBadRootHooks(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	where := hostRoot(t)
	etc := filepath.Join(where.Root, "etc")
	must(t, syscall.Mount("tmpfs", etc, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must(t, syscall.Unmount(etc, syscall.MNT_DETACH)) })
	const asleep = "3600.0625" // tells them from others
	fsys := fstest.MapFS{}
	for name, script := range map[string]string{
		"10-floods": "head -c 200000000 /dev/zero\necho the end\n",
		"20-fills":  "head -c 1000000 /dev/zero >/etc/large\n",
		"30-none":   "",
		"40-hangs":  "for _ in $(seq 100); do sleep " + asleep + " & done\n>/run/asleep\nsleep " + asleep + "\n",
	} {
		order, name, _ := strings.Cut(name, "-")
		fsys[name+"/rune.toml"] = &fstest.MapFile{Data: []byte("name = \"" + name + "\"\norder = " + order), Mode: 0o644}
		fsys[name+"/files/run/"+name] = &fstest.MapFile{Data: []byte("laid"), Mode: 0o644}
		if script != "" {
			fsys[name+"/hooks/root"] = &fstest.MapFile{Data: []byte("#!/bin/sh\n" + script), Mode: 0o644}
		}
	}
	fsys["none/files/etc/none"] = &fstest.MapFile{Data: bytes.Repeat([]byte("x"), 64<<10), Mode: 0o644}
	// A hook has a minute; the end of all hooks works in the same way.
	ctx, end := context.WithCancelCause(t.Context())
	hangs := make(chan struct{})
	go func() {
		defer close(hangs)
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(where.Run, "asleep")); err == nil {
				end(errors.New("the boot has no more time"))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	defer func() { end(nil); <-hangs }()
	var log bytes.Buffer
	results := make(map[string]Result)
	for _, r := range Apply(ctx, where, one(t, fsys), testFacts(), slog.New(slog.NewTextHandler(&log, nil))) {
		results[r.Rune] = r
		if got := read(t, where, "/run/"+r.Rune); got != "laid" {
			t.Errorf("%s: its file has %q", r.Rune, got)
		}
	}
	if r := results["floods"]; r.Outcome != Applied || log.Len() > 8*maxHookOutput || !strings.Contains(log.String(), "the end") {
		t.Errorf("%+v, and %d bytes in the log", r, log.Len())
	}
	for name, want := range map[string]string{"fills": "hook root: exit status 1: head: error writing 'standard output': No space left on device", "none": "no space left on device", "hangs": "hook root: the boot has no more time"} {
		if r := results[name]; r.Outcome != Degraded || !strings.Contains(r.Reason, want) {
			t.Errorf("%s: %+v, want %q", name, r, want)
		}
	}
	until(t, func() string { // a killed process takes a moment to be gone
		list, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		for _, name := range list {
			if args, _ := os.ReadFile(name); strings.Contains(string(args), "\x00"+asleep+"\x00") {
				return "what the hook has started ends with it: " + name
			}
		}
		return ""
	})
}
