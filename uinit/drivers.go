package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"viver.lan/internal/disks"
	"viver.lan/internal/hardware"
	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
	"viver.lan/internal/sleep"
)

const (
	// driversTries is how often the drivers are fetched, driversPause the time
	// between.
	driversTries = 3
	driversPause = 2 * time.Second
	// disksWait bounds the wait for disks that got their drivers, and then for what
	// those that are there answer: a large array takes longer, and may be left out.
	disksWait = 10 * time.Second
)

// drivers fetches the modules for rare controllers and for file systems, which are
// not in the initramfs because firmware need not load them, if this machine's disks
// ask for one; and those for other network cards than the one that it booted from, if
// it has one. A disk or a card that comes later is the distribution's, which has them
// all. The machine with the medium has them from the start.
func (n *node) drivers(ctx context.Context) (string, error) {
	if n.boot.First {
		return "on the medium", nil
	}
	reasons, err := n.missingDrivers(ctx)
	forCards, forDisks := n.sortDrivers(reasons)
	none := "not fetched: no disk asks for one"
	if !n.settings.UseDisks {
		none, forDisks = "not fetched: the settings say that no disk is used", nil
	}
	var details []string
	errs := []error{err}
	for _, f := range []struct {
		file, whose string
		reasons     []string
	}{{manifest.Drivers, "disks", forDisks}, {manifest.NICs, "network cards", forCards}} {
		if len(f.reasons) == 0 {
			continue
		}
		detail, err := n.addDrivers(ctx, f.file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w; %s of this machine ask for %s", err, f.whose, strings.Join(f.reasons, ", ")))
		}
		if detail != "" {
			details = append(details, detail)
		}
	}
	return cmp.Or(strings.Join(details, "; "), none), errors.Join(errs...)
}

// sortDrivers tells modules for network cards from other reasons to fetch drivers. The
// table of the former came with what a boot host gave of them; older images have none.
func (n *node) sortDrivers(reasons []string) (forCards, forDisks []string) {
	table := new(nics.Table)
	data, err := os.ReadFile(n.host.Path("/" + nics.TableFile))
	if err == nil {
		if table, err = nics.Decode(data); err != nil {
			n.log.Warn("drivers", "error", err)
			table = new(nics.Table)
		}
	}
	for _, reason := range reasons {
		if table.Holds(reason) {
			forCards = append(forCards, reason)
		} else {
			forDisks = append(forDisks, reason)
		}
	}
	return forCards, forDisks
}

// missingDrivers returns what devices and disks of this machine ask for and the
// initramfs has not. A disk that does not answer yet may ask for anything.
func (n *node) missingDrivers(ctx context.Context) (reasons []string, err error) {
	if !n.settings.UseDisks {
		return n.modules.Missing(), nil
	}
	if awaited := n.awaitDisks(ctx, n.modules.Newest()); awaited != "" {
		n.log.Info("drivers: no longer waited for: " + awaited)
	}
	wait, cancel := context.WithTimeout(ctx, disksWait)
	defer cancel()
	needed, silent, err := disks.Drivers(wait, n.host)
	if err != nil {
		return nil, err
	}
	_, _ = n.modules.Load(ctx, needed...) // what fails for another reason is logged, or said by the search
	reasons = n.modules.Missing()
	for _, disk := range silent {
		reasons = append(reasons, "whatever is on "+disk+", which does not answer yet")
	}
	return reasons, nil
}

// awaitDisks waits for disks that got their drivers; see disks.Settle.
func (n *node) awaitDisks(ctx context.Context, since time.Time) (awaited string) {
	ctx, cancel := context.WithTimeout(ctx, disksWait)
	defer cancel()
	return disks.Settle(ctx, n.host, since)
}

// addDrivers fetches a file of modules and loads those that were asked for.
func (n *node) addDrivers(ctx context.Context, name string) (string, error) {
	// The owner's signature says which bytes are the right ones.
	file, _, ok := n.image.Lookup(name)
	if !ok {
		return "the image has no other drivers than those of the initramfs", nil
	}
	files, err := n.unpackDrivers(ctx, file)
	if files == 0 && err != nil {
		return "", err
	}
	debug.FreeOSMemory() // the pieces of the image need it
	report := n.modules.Resume(ctx)
	detail := fmt.Sprintf("%d files fetched, %d bytes; %s", files, file.Size, report)
	if len(report.Loaded) > 0 && name == manifest.Drivers {
		if awaited := n.awaitDisks(ctx, time.Now()); awaited != "" {
			detail += "; no longer waited for: " + awaited
		}
	}
	return detail, err
}

// unpackDrivers puts the modules where the loader looks for them.
func (n *node) unpackDrivers(ctx context.Context, file manifest.FileInfo) (files int, err error) {
	data, err := n.fetchDrivers(ctx, file)
	if err == nil && file.Name == manifest.NICs {
		data, err = withoutTable(data)
	}
	if err != nil {
		return 0, err
	}
	release, err := hardware.Release(n.host)
	if err != nil {
		return 0, err
	}
	root, err := os.OpenRoot(n.host.Path("/"))
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return hardware.Unpack(root, release, bytes.NewReader(data))
}

// withoutTable returns the archives of a file of network drivers.
func withoutTable(data []byte) ([]byte, error) {
	table, err := nics.Read(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	head, err := table.Head(int64(len(data)))
	if err != nil {
		return nil, err
	}
	return data[head:], nil
}

// fetchDrivers gets the file from the node that the boot host names, and if that
// fails, from the boot host itself.
func (n *node) fetchDrivers(ctx context.Context, file manifest.FileInfo) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: n.boot.Host.String(), Path: "/boot/" + n.image.Infohash.String() + "/" + file.Name}
	for try := 1; ; try++ {
		data, err := fetchFile(ctx, &u, file)
		if err == nil || try == driversTries || try > 1 && errors.Is(err, errRefused) {
			return data, err
		}
		n.log.Warn("drivers: trying again", "attempt", fmt.Sprintf("%d of %d", try+1, driversTries), "error", err)
		if try > 1 && sleep.For(ctx, driversPause) != nil {
			return nil, err
		}
		u.RawQuery = manifest.NoRedirect
	}
}

// fetchFile gets a file of the image and refuses it unless it is the owner's.
func fetchFile(ctx context.Context, u *url.URL, want manifest.FileInfo) ([]byte, error) {
	data, err := fetchURL(ctx, u)
	if err != nil {
		return nil, err
	}
	if err := checkFile(want, data); err != nil {
		return nil, fmt.Errorf("%w: %s from %s: %w", errRefused, want.Name, u.Host, err)
	}
	return data, nil
}

// checkFile compares a file with what the signed manifest says of it.
func checkFile(want manifest.FileInfo, data []byte) error {
	if int64(len(data)) != want.Size {
		return fmt.Errorf("it has %d bytes, the signed manifest says %d", len(data), want.Size)
	}
	if sum := manifest.Digest(sha256.Sum256(data)); sum != want.SHA256 {
		return fmt.Errorf("its SHA-256 is %s, the signed manifest says %s", sum, want.SHA256)
	}
	return nil
}
