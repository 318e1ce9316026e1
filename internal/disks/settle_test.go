package disks

import (
	"context"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/machine/machinetest"
)

func TestPending(t *testing.T) {
	const (
		usb  = "/sys/bus/usb/drivers/usb-storage/1-1:1.0/"
		unit = usb + "host6/target6:0:0/6:0:0:0/"
		nvme = "/sys/class/nvme/nvme0/"
	)
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, ""},
		{"an NVMe drive in reset", map[string]string{nvme + "state": "resetting\n"}, "NVMe controller nvme0"},
		{"an NVMe drive before its look for namespaces", map[string]string{nvme + "state": "live\n"}, "NVMe controller nvme0"},
		{"an NVMe drive", map[string]string{nvme + "state": "live\n", nvme + "nvme0n1/size": "8\n"}, ""},
		{"an NVMe drive on two paths", map[string]string{nvme + "state": "live\n", nvme + "nvme0c0n1/size": "8\n"}, ""},
		{"a dead NVMe drive", map[string]string{nvme + "state": "dead\n"}, ""},
		{"a stick that was not asked yet", map[string]string{usb + "bInterfaceClass": "08\n"}, "USB device 1-1:1.0"},
		{"a stick with no disk yet", map[string]string{unit + "type": "0\n"}, "USB device 1-1:1.0"},
		{"a stick", map[string]string{unit + "type": "0\n", unit + "block/sda/size": "8\n"}, ""},
		{"a scanner", map[string]string{unit + "type": "6\n"}, ""},
		{"a card reader, one of two slots there", map[string]string{unit + "type": "0\n", unit + "block/sda/size": "8\n",
			usb + "host6/target6:0:0/6:0:0:1/type": "0\n"}, "USB device 1-1:1.0"},
	} {
		if got := pending(machinetest.New(t, tt.files)); got != tt.want {
			t.Errorf("%s: waits for %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestSettle(t *testing.T) {
	const nvme = "/sys/class/nvme/nvme0/"
	m := machinetest.New(t, map[string]string{nvme + "state": "new\n"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if got := Settle(ctx, m, time.Now()); !strings.Contains(got, "nvme0") {
		t.Errorf("Settle = %q when the time was over, want what it waits for", got)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		m.Put(t, nvme+"nvme0n1/size", "8\n")
	}()
	if got := Settle(t.Context(), m, time.Now()); got != "" {
		t.Errorf("Settle = %q, want nothing: the disk is there", got)
	}
	over, end := context.WithCancel(t.Context())
	end()
	if got := Settle(over, m, time.Now().Add(-time.Hour)); got != "" {
		t.Errorf("Settle = %q long after the last device came", got)
	}
}
