package bootfiles

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/nics"
	"viver.lan/internal/testlinux"
	"viver.lan/kernelconfig"
)

// cardModules are modules for the cases of TestFamilies: file, what it needs, aliases.
const cardModules = `
kernel/drivers/net/plain.ko | | pci:v00001111d00000001sv*sd*bc*sc*i*
kernel/drivers/net/mii.ko | |
kernel/drivers/net/uses_mii.ko | mii | pci:v00001111d00000002sv*sd*bc*sc*i*
kernel/drivers/net/core.ko | | pci:v00001111d00000003sv*sd*bc*sc*i*
kernel/drivers/net/core_en.ko | core mii |
kernel/drivers/net/one.ko | | pci:v00001111d00000004sv00001111sd*bc*sc*i*
updates/dkms/other.ko | | pci:v00001111d00000004sv00002222sd*bc*sc*i*
kernel/drivers/net/any_vendor.ko | | pci:v*d00000001sv00003333sd*bc*sc*i*
kernel/drivers/net/by_class.ko | | pci:v00004444d*sv*sd*bc02sc00i00*
kernel/drivers/net/of_4444.ko | | pci:v00004444d00000005sv*sd*bc*sc*i*
kernel/drivers/net/libphy.ko | |
kernel/drivers/net/phy/some.ko | libphy |
kernel/drivers/net/uses_phy.ko | libphy | pci:v00001111d00000006sv*sd*bc*sc*i*
kernel/drivers/net/usb.ko | mii | usb:v1234*
kernel/drivers/net/virtual.ko | | pci:v00005555d00000001sv*sd*bc*sc*i*
kernel/drivers/bus.ko | | pci:v00006666d*sv*sd*bc*sc*i*
kernel/drivers/net/soft.ko | | pci:v00001111d00000007sv*sd*bc*sc*i*
kernel/drivers/disk.ko | | pci:v00007777d00000001sv*sd*bc*sc*i*
`

// cardIndex is an index of these modules.
func cardIndex(t *testing.T, drop string) *moduleIndex {
	t.Helper()
	var dep, alias strings.Builder
	path := map[string]string{}
	lines := strings.Split(strings.TrimSpace(cardModules), "\n")
	for _, line := range lines {
		file, _, _ := strings.Cut(line, " ")
		path[moduleName(file)] = file
	}
	for _, line := range lines {
		f := strings.Split(line, "|")
		file := strings.TrimSpace(f[0])
		if moduleName(file) == drop {
			continue
		}
		fmt.Fprintf(&dep, "%s:", file)
		for _, need := range strings.Fields(f[1]) {
			if need != drop {
				fmt.Fprintf(&dep, " %s", path[need])
			}
		}
		fmt.Fprintln(&dep)
		for _, a := range strings.Fields(f[2]) {
			fmt.Fprintf(&alias, "alias %s %s\n", a, moduleName(file))
		}
	}
	dir := "lib/modules/1/"
	x, err := readModuleIndex(testlinux.FS([]testlinux.File{
		{Name: dir + "modules.dep", Data: dep.String()}, {Name: dir + "modules.alias", Data: alias.String()},
		{Name: dir + "modules.softdep", Data: "softdep soft pre: some\n"},
	}), Kernel{Release: "1", Modules: "lib/modules/1"})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// A card gets all that may drive it, what that needs, and what depends on it; a card
// that nothing names is not known.
func TestFamilies(t *testing.T) {
	groups := []kernelconfig.Group{
		{Name: "cards", NIC: true, Modules: []string{"plain", "uses_mii", "core_en", "one", "other", "any_vendor", "by_class", "of_4444", "uses_phy", "usb", "soft"}},
		{Name: "old", NIC: true, NoUEFI: true, Modules: []string{"uses_mii", "one", "of_4444", "uses_phy"}},
		{Name: "phy", NIC: true, Dirs: []string{"drivers/net/phy"}, With: "libphy"},
		{Name: "virtual", Modules: []string{"virtual", "bus"}, Cards: []string{"6666:0001"}},
		{Name: "disks", Late: true, Modules: []string{"disk"}},
	}
	for drop, cases := range map[string]map[string]string{
		"": {
			"1111:0001": "any_vendor plain",
			"1111:0002": "mii uses_mii",
			"1111:0003": "core core_en mii",
			"1111:0004": "one other",
			"4444:0005": "by_class of_4444",
			"1111:0006": "libphy some uses_phy",
			"1111:0007": "libphy soft some",
			"5555:0001": "any_vendor", // and what every machine has
			"6666:0001": "any_vendor",
			"1234:0001": "unknown",
			"6666:0002": "unknown",
			"7777:0001": "unknown",
		},
		// Built into the kernel, it tells nobody who uses it.
		"libphy": {"1111:0002": "mii some uses_mii", "1111:0006": "some uses_phy", "1111:0001": "any_vendor plain some"},
	} {
		x := cardIndex(t, drop)
		early, forCards, late := x.split(groups)
		families, covered, err := x.families(groups, early, forCards)
		if err != nil {
			t.Fatal(err)
		}
		if len(late) != 1 || slices.Contains(forCards, "kernel/drivers/disk.ko") {
			t.Errorf("late %q, for cards %q", late, forCards)
		}
		var all []string
		for _, f := range families {
			all = append(all, f.files...)
		}
		if slices.Sort(all); !slices.Equal(all, slices.Sorted(slices.Values(forCards))) {
			t.Errorf("families of %q, want each of %q once", all, forCards)
		}
		var noUEFI []string
		for _, f := range families {
			if f.noUEFI {
				for _, file := range f.files {
					noUEFI = append(noUEFI, moduleName(file))
				}
			}
		}
		// What another card needs too is not among these, nor the driver of a card that
		// another one may drive.
		if slices.Sort(noUEFI); !slices.Equal(noUEFI, []string{"uses_mii", "uses_phy"}) {
			t.Errorf("without %q, for cards without UEFI: %q", drop, noUEFI)
		}
		for text, want := range cases {
			card, err := nics.ParseCard(text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range families {
				if slices.Contains(f.cards, card) {
					for _, file := range f.files {
						got = append(got, moduleName(file))
					}
				}
			}
			if slices.Sort(got); got == nil && !slices.Contains(covered, card) {
				got = []string{"unknown"}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("without %q, %s gets %q, want %q", drop, text, got, want)
			}
		}
	}
	groups[3].Cards = []string{"6666"}
	x := cardIndex(t, "")
	if _, _, err := x.families(groups, nil, nil); err == nil || !strings.Contains(err.Error(), "group virtual") {
		t.Errorf("a card that is none: %v", err)
	}
}
