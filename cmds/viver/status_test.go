package main

import (
	"strings"
	"testing"

	"viver.lan/internal/control"
)

func TestStatusSaysHowFullTheRootIs(t *testing.T) {
	for _, test := range []struct {
		written *control.Written
		want    string // "" for no line
	}{
		{nil, ""},
		{&control.Written{Size: 500e6, Free: 400e6, Files: 100_000, FilesFree: 90_000}, "100.0 MB of 500.0 MB used, room for 90000 more files\n"},
		{&control.Written{Size: 500e6, Free: 400e6, Files: 100_000}, "room for 0 more files: almost full"},
		{&control.Written{Size: 500e6, Free: 20e6, Files: 100_000, FilesFree: 90_000}, "more files: almost full"},
		{&control.Written{Size: 500e6, Free: 400e6}, "100.0 MB of 500.0 MB used\n"}, // btrfs has no limit
	} {
		var out strings.Builder
		if err := writeStatus(&out, &control.Status{Written: test.written}); err != nil {
			t.Fatal(err)
		}
		_, line, found := strings.Cut(out.String(), "written files")
		if found != (test.want != "") || !strings.Contains(line, test.want) {
			t.Errorf("%+v: %q, want %q", test.written, line, test.want)
		}
	}
}

func TestStatusSaysThatFaultsWereContained(t *testing.T) {
	for n, want := range map[uint64]bool{0: false, 3: true} {
		var out strings.Builder
		if err := writeStatus(&out, &control.Status{Panics: n}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "3, each of which ended one connection or packet"); got != want {
			t.Errorf("%d faults: %q", n, out.String())
		}
	}
}
