package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/hardware"
)

// A machine with a card that runs, one whose module is not loaded, and a drive in a slot
// that has fewer lanes.
func TestDoctorHardware(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/sys/kernel/osrelease":              "6.1.0-test\n",
		"lib/modules/6.1.0-test/modules.dep":     "kernel/drivers/net/ethernet/intel/igb/igb.ko:\n",
		"lib/modules/6.1.0-test/modules.alias":   "alias pci:v00008086d00001533sv*sd*bc*sc*i* igb\n",
		"sys/bus/pci/devices/0000:00:1f.6/class": "0x020000", "sys/bus/pci/devices/0000:00:1f.6/vendor": "0x8086", "sys/bus/pci/devices/0000:00:1f.6/device": "0x15d8",
		"sys/bus/pci/devices/0000:03:00.0/class": "0x020000", "sys/bus/pci/devices/0000:03:00.0/vendor": "0x8086", "sys/bus/pci/devices/0000:03:00.0/device": "0x1533",
		"sys/bus/pci/devices/0000:03:00.0/modalias": "pci:v00008086d00001533sv00000000sd00000000bc02sc00i00\n",
		"sys/bus/pci/devices/0000:01:00.0/class":    "0x010802", "sys/bus/pci/devices/0000:01:00.0/vendor": "0x144d", "sys/bus/pci/devices/0000:01:00.0/device": "0xa808",
		"sys/bus/pci/devices/0000:01:00.0/current_link_width": "1", "sys/bus/pci/devices/0000:01:00.0/max_link_width": "4",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for address, driver := range map[string]string{"0000:00:1f.6": "e1000e", "0000:01:00.0": "nvme"} {
		if err := os.Symlink("../../drivers/"+driver, filepath.Join(root, "sys/bus/pci/devices", address, "driver")); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	r := surveyHardware(root, "")
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kernel 6.1.0-test", "e1000e", "ok", "MISSING", "slow", "8086:1533 Intel at pci 0000:03:00.0: no driver runs it: module igb would", "on 1 of the 4 lanes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if err := r.verdict(); !errors.Is(err, errUnhealthy) || !strings.Contains(err.Error(), "8086:1533") {
		t.Errorf("the verdict is %v", err)
	}
	var decoded hardwareReport
	data, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(data, &decoded)
	}
	if err != nil || len(decoded.Devices) != 3 || decoded.Devices[1].Kind != hardware.KindNetwork || len(decoded.Devices[1].Missing) != 1 {
		t.Errorf("%v, as JSON %s", err, data)
	}
}
