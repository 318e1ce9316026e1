package disks

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// settleEvery is the time between two checks for new disks, and settleQuiet how long
// none may have appeared before the others are considered absent.
const (
	settleEvery = 50 * time.Millisecond
	settleQuiet = 300 * time.Millisecond
)

// Settle waits, after drivers were loaded, until the disks behind them are there.
// Most drivers find their disks before they are loaded; for those of USB and NVMe
// the kernel shows that they still search. since is when the last device appeared, as
// far as the caller knows. It returns what it still waited for when ctx ended, "" if
// nothing.
func Settle(ctx context.Context, m interface{ Path(string) string }, since time.Time) (awaited string) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	before := settled(m)
	for {
		now := settled(m)
		if now != before {
			before, since = now, time.Now()
		}
		awaited = pending(m)
		if awaited == "" && time.Since(since) >= settleQuiet {
			return ""
		}
		select {
		case <-ctx.Done():
			return awaited
		case <-tick.C:
		}
	}
}

// settled names the disks that are there.
func settled(m interface{ Path(string) string }) string {
	all, err := List(m)
	if err != nil {
		return "" // none yet
	}
	return fmt.Sprint(all)
}

// pending names the first device that has a driver for disks and no disk yet.
func pending(m interface{ Path(string) string }) string {
	for _, driver := range []string{"usb-storage", "uas"} {
		for _, device := range glob(m.Path("/sys/bus/usb/drivers/"+driver), "*:*") {
			units := glob(device, "host*/target*/*:*:*:*")
			if len(units) == 0 || slices.ContainsFunc(units, comes) {
				return "USB device " + filepath.Base(device)
			}
		}
	}
	for _, controller := range glob(m.Path("/sys/class/nvme"), "nvme*") {
		state := attribute(controller, "state")
		if state != "dead" && !strings.HasPrefix(state, "deleting") && len(glob(controller, "nvme*n*")) == 0 {
			return "NVMe controller " + filepath.Base(controller)
		}
	}
	return ""
}

// comes reports whether a SCSI device is a disk that has no name yet.
func comes(unit string) bool {
	return attribute(unit, "type") == "0" && len(glob(unit, "block/*")) == 0
}

func glob(dir, pattern string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, pattern)) // fails on a bad pattern only
	return found
}
