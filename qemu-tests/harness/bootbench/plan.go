package bootbench

import (
	"fmt"
	"slices"
	"strings"

	"viver.lan/qemu-tests/harness"
)

// The systems that a row can be about.
const (
	Disk  = "disk"  // the tree on a local ext4 disk
	NBD   = "nbd"   // nbd-client and overlayroot in Debian's initramfs
	Live  = "live"  // live-boot with fetch=
	VIVER = "viver" // a node beside an idle first node
	Room  = "room"  // nodes that are switched on together
)

// memory of every machine, in MiB; of the nodes of a room of tiny, less.
const (
	memory     = 1024
	tinyMemory = 512
)

// spec is a row of the plan.
type spec struct {
	name     string
	system   string
	image    string // of a room
	firmware harness.Firmware
	cpus     int
	n        int // machines that are timed
	runs     int
}

// plan has all rows in their order. The rows that are compared with each other
// come first.
func plan() []spec {
	var all []spec
	for _, cpus := range []int{1, 2} {
		for _, system := range []string{Disk, NBD, Live, VIVER} {
			all = append(all, spec{name: fmt.Sprintf("%s:%d", system, cpus), system: system, firmware: harness.BIOS, cpus: cpus, n: 1, runs: 3})
		}
	}
	return append(all,
		spec{name: "viver:uefi", system: VIVER, firmware: harness.UEFI, cpus: 1, n: 1, runs: 3},
		spec{name: "viver:uefi-secure", system: VIVER, firmware: harness.SecureUEFI, cpus: 1, n: 1, runs: 3},
		spec{name: "room:tiny", system: Room, image: "tiny", firmware: harness.BIOS, cpus: 1, n: 8, runs: 1},
		spec{name: "room:debian", system: Room, image: "debian", firmware: harness.BIOS, cpus: 1, n: 4, runs: 1})
}

// quick are the rows that say most in the least time.
func quick() []string { return []string{"disk:1", "nbd:1", "viver:1"} }

// choose returns the rows that the words name, each with its whole name or with
// what is before the colon; all if there are no words.
func choose(words []string, runs int) ([]spec, error) {
	all := plan()
	for i := range all {
		if runs > 0 {
			all[i].runs = runs
		}
	}
	if len(words) == 0 {
		return all, nil
	}
	chosen := map[string]bool{}
	for _, word := range words {
		found := false
		for _, s := range all {
			if s.name == word || strings.HasPrefix(s.name, word+":") {
				chosen[s.name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("no row is called %q; there are: %s", word, strings.Join(names(all), ", "))
		}
	}
	return slices.DeleteFunc(all, func(s spec) bool { return !chosen[s.name] }), nil
}

func names(specs []spec) (out []string) {
	for _, s := range specs {
		out = append(out, s.name)
	}
	return out
}
