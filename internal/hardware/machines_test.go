package hardware

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/bootfiles"
)

var update = flag.Bool("update", false, "write testdata/drivers.txt as it is now, to be looked at")

// purposes are what a driver is for, by its file.
var purposes = []struct {
	name string
	dirs []string
}{
	{"network", []string{"net/"}},
	{"storage", []string{"ata/", "block/", "message/", "misc/cardreader/", "mmc/", "nvme/", "pci/controller/", "scsi/"}},
	{"input", []string{"hid/", "input/", "usb/host/"}},
}

// driversOf returns for each purpose what the devices of a machine get: "module:part" of the
// image, "module:-" for one that no part has.
func driversOf(tree *Tree, parts *bootfiles.Modules, modaliases []string) map[string][]string {
	found := make(map[string][]string)
	for _, modalias := range modaliases {
		for _, name := range tree.Match(modalias) {
			for _, p := range purposes {
				in := func(dir string) bool {
					return strings.HasPrefix(tree.modules[name].file, "kernel/drivers/"+dir)
				}
				part, _, _ := strings.Cut(parts.PartOf(name), ".")
				if part == "" {
					part = "-"
				}
				if text := name + ":" + part; slices.ContainsFunc(p.dirs, in) && !slices.Contains(found[p.name], text) {
					found[p.name] = append(found[p.name], text)
				}
			}
		}
	}
	return found
}

// tables opens the tables of a kernel in testdata, and says which part of an image each
// module would be in.
func tables(t *testing.T, dir string) (*Tree, *bootfiles.Modules) {
	t.Helper()
	home, err := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
	if err != nil || len(home) != 1 {
		t.Fatalf("%s has %q, want one kernel: testdata/tables.sh makes them", dir, home)
	}
	release := filepath.Base(home[0])
	tree, err := OpenTree(dir, release)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := bootfiles.ChooseModules(os.DirFS(dir), bootfiles.Kernel{Release: release, Modules: "lib/modules/" + release})
	if err != nil {
		t.Fatal(err)
	}
	return tree, parts
}

// What machines of fifteen years are made of (testdata/machines: makers' IDs, written from
// published lists or by testdata/collect.sh on the machine) gets the drivers in
// testdata/drivers.txt from the kernels of Debian 12 and 13, out of the parts of an image:
// initramfs, nics (for this card), drivers (for disks, and only if the machine has one).
func TestMachinesGetTheirDrivers(t *testing.T) {
	machines, err := filepath.Glob("testdata/machines/*.txt")
	if err != nil || len(machines) < 20 {
		t.Fatalf("%d machines, %v", len(machines), err)
	}
	kernels, _ := filepath.Glob("testdata/debian-*")
	var got strings.Builder
	for _, dir := range kernels {
		tree, parts := tables(t, dir)
		for _, file := range machines {
			machine := strings.TrimSuffix(filepath.Base(file), ".txt")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found := driversOf(tree, parts, ParseMachine(string(text)))
			for _, p := range slices.Sorted(maps.Keys(found)) {
				fmt.Fprintf(&got, "%s %s %s: %s\n", filepath.Base(dir), machine, p, strings.Join(found[p], " "))
			}
			if !slices.ContainsFunc(found["network"], func(d string) bool { return !strings.HasSuffix(d, ":-") }) {
				t.Errorf("%s: no part of the image has a driver for the network of %s: %q", filepath.Base(dir), machine, found["network"])
			}
		}
	}
	const golden = "testdata/drivers.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if lacks, more := compareLines(string(want), got.String()); len(lacks)+len(more) > 0 {
		t.Errorf("no longer so:\n%s\nnow:\n%s\nIf that is right: go test ./internal/hardware -run %s -update", strings.Join(lacks, ""), strings.Join(more, ""), t.Name())
	}
}

// compareLines returns the lines that only one of two texts has.
func compareLines(a, b string) (onlyA, onlyB []string) {
	of := func(s string) []string { return slices.Collect(strings.Lines(s)) }
	not := func(list []string) func(string) bool {
		return func(s string) bool { return slices.Contains(list, s) }
	}
	return slices.DeleteFunc(of(a), not(of(b))), slices.DeleteFunc(of(b), not(of(a)))
}

// The script that people run on their machines prints no serial number: not even where a
// maker has put one into the machine's name.
func TestCollectPrintsNoSerialNumbers(t *testing.T) {
	root := t.TempDir()
	const secret = "S3CR3T"
	write(t, root, map[string]string{
		"class/dmi/id/sys_vendor": "Acme\n", "class/dmi/id/product_name": "Box\n", "class/dmi/id/product_serial": secret,
		"class/dmi/id/modalias":                 "dmi:bvnAcme:svnAcme:pn" + secret + ":\n",
		"bus/pci/devices/0000:00:03.0/modalias": "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00\n",
		"bus/usb/devices/1-1:1.0/modalias":      "usb:v046DpC31Cd6402dc00dsc00dp00ic03isc01ip01in00\n",
		"bus/usb/devices/1-1/serial":            secret, "bus/cpu/devices/cpu0/modalias": "cpu:type:x86,ven0000\n",
		"bus/platform/devices/dmi/modalias": "dmi:svn" + secret + "\n",
	})
	out, err := exec.Command("sh", "testdata/collect.sh", root).CombinedOutput()
	if err != nil {
		t.Fatalf("collect.sh: %v\n%s", err, out)
	}
	want := "# Acme Box\npci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00\nusb:v046DpC31Cd6402dc00dsc00dp00ic03isc01ip01in00\n"
	if string(out) != want {
		t.Errorf("collect.sh prints\n%s\nwant\n%s", out, want)
	}
	if got := ParseMachine(string(out)); len(got) != 2 {
		t.Errorf("that is read as %q", got)
	}
}
