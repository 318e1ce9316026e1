package disks

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/machine/machinetest"
)

// Identities of two media.
const (
	idA = "aaaaaaaaaaaaaaaa"
	idB = "bbbbbbbbbbbbbbbb"
)

func mediumJSON(id string) []string {
	return []string{fmt.Sprintf(`viver/medium.json={"format":1,"id":%q,"image":%q}`, id, strings.Repeat("c0", 20))}
}

func isoFile(t testing.TB, label string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "medium.iso")
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", label, "-o", path, t.TempDir())
	return path
}

func TestFindMedium(t *testing.T) {
	iso, other, ext4 := isoFile(t, "VIVER"), isoFile(t, "DEBIAN"), image(t, 16*mib, "mkfs.ext4", "-q")
	for name, tt := range map[string]struct {
		disks    map[string]string
		contents map[string][]string
		want     string
		device   string
		note     string
		err      []string
	}{
		"CD":         {disks: map[string]string{"sr0": iso, "sda": ext4}, contents: map[string][]string{"sr0": mediumJSON(idA)}, want: idA, device: "sr0"},
		"whole disk": {disks: map[string]string{"sda": iso, "sda1": iso}, contents: map[string][]string{"sda": mediumJSON(idA), "sda1": mediumJSON(idA)}, want: idA, device: "sda"},
		"any id":     {disks: map[string]string{"sdb": iso}, contents: map[string][]string{"sdb": mediumJSON(idA)}, device: "sdb"},
		"the wanted one wins": {disks: map[string]string{"sda": iso, "sdb": iso}, contents: map[string][]string{"sda": mediumJSON(idB), "sdb": mediumJSON(idA)},
			want: idA, device: "sdb", note: "sda is not used: its id is " + idB},
		"two equal": {disks: map[string]string{"sda": iso, "sr0": iso}, contents: map[string][]string{"sda": mediumJSON(idA), "sr0": mediumJSON(idA)},
			want: idA, device: "sda", note: "sda (" + idA + "), sr0 (" + idA + ") all fit: sda is used"},
		"other label": {disks: map[string]string{"sda": other}, contents: map[string][]string{"sda": mediumJSON(idA)}, want: idA,
			err: []string{"labelled VIVER with id aa", "only sda"}},
		"wrong id": {disks: map[string]string{"sda": iso}, contents: map[string][]string{"sda": mediumJSON(idB)}, want: idA,
			err: []string{"the medium in sda is not used: its id is " + idB}},
		"no file": {disks: map[string]string{"sda": iso}, want: idA, err: []string{"medium in sda", "medium.json"}},
		"bad file": {disks: map[string]string{"sda": iso}, contents: map[string][]string{"sda": {"viver/medium.json={"}}, want: idA,
			err: []string{"medium in sda", "unexpected end"}},
		"no disks": {want: "", err: []string{"no disk or drive at all"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := machinetest.New(t, map[string]string{"/sys/class/block/": ""})
			for disk, path := range tt.disks {
				if parent := strings.TrimRight(disk, "1"); parent != disk {
					addPartition(t, m, parent, disk, path)
				} else {
					addDisk(t, m, disk, path)
				}
			}
			fill(t, m, tt.contents)
			wait := 2 * time.Minute
			if tt.err != nil {
				wait = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			medium, err := FindMedium(ctx, m, tt.want, m.Path("/run/viver/medium"))
			if tt.err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("error %v, medium %+v", err, medium)
				}
				for _, words := range tt.err {
					if !strings.Contains(err.Error(), words) {
						t.Errorf("error %q does not say %q", err, words)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if medium.Device.Name != tt.device || !strings.Contains(medium.Note, tt.note) || medium.Note != "" && tt.note == "" {
				t.Errorf("medium %+v, want %s and a note %q", medium, tt.device, tt.note)
			}
			if medium.Image.String() != strings.Repeat("c0", 20) || medium.Dir != m.Path("/run/viver/medium") {
				t.Errorf("medium %+v", medium)
			}
			calls := m.Calls()
			if last := calls[len(calls)-1]; !strings.HasPrefix(last, "mount /dev/"+tt.device+" /run/viver/medium iso9660") {
				t.Errorf("the last call is %q: the medium must stay mounted", last)
			}
		})
	}
}

func TestFindMediumWaitsForALateDisk(t *testing.T) {
	iso := isoFile(t, "VIVER")
	m := machinetest.New(t, map[string]string{"/sys/class/block/": ""})
	addDisk(t, m, "sda", image(t, mib))
	fill(t, m, map[string][]string{"sdb": mediumJSON(idA)})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	plugged := make(chan struct{})
	go func() {
		defer close(plugged)
		time.Sleep(2 * pollEvery)
		addDisk(t, m, "sdb", iso)
	}()
	medium, err := FindMedium(ctx, m, idA, m.Path("/medium"))
	<-plugged
	if err != nil || medium.Device.Name != "sdb" {
		t.Errorf("FindMedium = %+v, %v", medium, err)
	}
}
