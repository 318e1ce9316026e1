package bootfiles

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/nics"
	"viver.lan/kernelconfig"
)

// family is modules that the same network cards need.
type family struct {
	files  []string // in the order of modules.dep
	cards  []nics.Card
	noUEFI bool // no machine starts by UEFI from one of the cards
}

// mostPackers is how many archives are packed at a time: each takes memory for what it
// packs, 2 MB, and for zstd's tables.
const mostPackers = 8

// WriteNICs writes the modules for network cards, an archive for each family behind the
// table that says which card needs which (package nics).
func (m *Modules) WriteNICs(ctx context.Context, w io.Writer, config kernelconfig.Config, progress func(done, total int64)) error {
	var done, total int64
	for _, f := range m.nics {
		total += m.sizes(f.files)
	}
	packed := make([]bytes.Buffer, len(m.nics))
	packers, packing := errgroup.WithContext(ctx)
	packers.SetLimit(min(runtime.NumCPU(), mostPackers))
	var reading error
	for i, f := range m.nics {
		// A family lacks no firmware that only others have.
		plain := new(bytes.Buffer)
		reading = m.writeArchive(packing, plain, f.files, maps.Clone(m.firmware), nothingMore, func(done, total int64) {})
		if reading != nil {
			break
		}
		packers.Go(func() error {
			return compressInitramfs(packing, &packed[i], config, forFirmware, plain.Len(), func(w io.Writer) error {
				_, err := plain.WriteTo(w)
				return err
			})
		})
		done += m.sizes(f.files)
		progress(done, total)
	}
	// What a packer says comes first: it ends the reading.
	if err := cmp.Or(packers.Wait(), reading); err != nil {
		return err
	}
	table := nics.Table{Covered: m.covered}
	for i, f := range m.nics {
		a := nics.Archive{Size: int64(packed[i].Len()), Cards: f.cards, NoUEFI: f.noUEFI}
		for _, file := range f.files {
			a.Modules = append(a.Modules, moduleName(file))
		}
		table.Archives = append(table.Archives, a)
	}
	if err := writeTable(w, &table); err != nil {
		return err
	}
	for i := range packed {
		if _, err := packed[i].WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

// writeTable writes the table as a member of a plain archive, which a boot host reads
// without unpacking anything.
func writeTable(w io.Writer, table *nics.Table) error {
	text, err := table.Encode()
	if err != nil {
		return err
	}
	c := newArchive(w)
	if err := c.file(nics.TableFile, text); err != nil {
		return err
	}
	return c.close()
}

// families sorts the modules for network cards, and lists the known cards that need none
// of them. A card is known if it has a driver among all modules that are not late.
func (x *moduleIndex) families(groups []kernelconfig.Group, early, forCards []string) (families []family, covered []nics.Card, err error) {
	drivers := x.cardDrivers(groups, early)
	cards, err := knownCards(groups, drivers)
	if err != nil {
		return nil, nil, err
	}
	needs := x.needsOf(groups, slices.Concat(early, forCards), drivers)
	users := make(map[string][]nics.Card) // by file
	uefi := make(map[nics.Card]bool)      // those that have a driver for cards with it
	for _, c := range cards {
		files := make(map[string]bool)
		for _, d := range drivers {
			if d.mayDrive(c) {
				maps.Copy(files, needs[d.file])
				uefi[c] = uefi[c] || !d.noUEFI
			}
		}
		none := true
		for _, file := range forCards {
			if files[file] {
				users[file] = append(users[file], c)
				none = false
			}
		}
		if none {
			covered = append(covered, c)
		}
	}
	for _, file := range forCards {
		i := slices.IndexFunc(families, func(f family) bool { return slices.Equal(f.cards, users[file]) })
		if i < 0 {
			i = len(families)
			families = append(families, family{cards: users[file], noUEFI: len(users[file]) > 0 &&
				!slices.ContainsFunc(users[file], func(c nics.Card) bool { return uefi[c] })})
		}
		families[i].files = append(families[i].files, file)
	}
	return families, covered, nil
}

// cardDriver is a driver of network cards on PCI.
type cardDriver struct {
	file     string
	patterns []pciPattern
	noUEFI   bool // kernelconfig.Group
}

// pciPattern is what an alias says of a PCI device's vendor and device. What it says of
// the rest, which a boot program does not tell, is taken to fit.
type pciPattern struct{ vendor, device string }

// pciAlias is such an alias; see file2alias.c of the kernel.
var pciAlias = regexp.MustCompile(`^pci:v([^d]*)d([^s]*)sv`)

// cardDrivers returns the drivers of cards on PCI: of the modules for network cards and
// what they depend on, and of the network drivers that each machine has, those with an
// alias there.
func (x *moduleIndex) cardDrivers(groups []kernelconfig.Group, early []string) (drivers []cardDriver) {
	patterns := make(map[string][]pciPattern) // by module
	for _, a := range x.aliases {
		if !strings.HasPrefix(a.pattern, "pci:") {
			continue
		}
		p := pciPattern{"*", "*"} // in doubt, all
		if f := pciAlias.FindStringSubmatch(a.pattern); f != nil {
			p = pciPattern{f[1], f[2]}
		}
		patterns[a.module] = append(patterns[a.module], p)
	}
	files := x.choose(only(groups, isNIC))
	for _, file := range early {
		if strings.HasPrefix(file, "kernel/drivers/net/") {
			files = append(files, file)
		}
	}
	for _, file := range x.ordered(files) {
		if p := patterns[moduleName(file)]; len(p) > 0 {
			drivers = append(drivers, cardDriver{file, p, slices.ContainsFunc(groups, func(g kernelconfig.Group) bool {
				return g.NoUEFI && slices.Contains(g.Modules, moduleName(file))
			})})
		}
	}
	return drivers
}

// mayDrive reports whether a driver may claim a card.
func (d cardDriver) mayDrive(c nics.Card) bool {
	return slices.ContainsFunc(d.patterns, func(p pciPattern) bool {
		return fits(p.vendor, c.Vendor) && fits(p.device, c.Device)
	})
}

// fits compares an ID with what an alias says of it; what is no pattern fits.
func fits(pattern string, id uint16) bool {
	ok, err := path.Match(pattern, fmt.Sprintf("%08X", id))
	return ok || err != nil
}

// knownCards lists the cards that drivers name, in order: those with a vendor and a
// device, and those of the groups.
func knownCards(groups []kernelconfig.Group, drivers []cardDriver) ([]nics.Card, error) {
	known := make(map[nics.Card]bool)
	for _, d := range drivers {
		for _, p := range d.patterns {
			vendor, err := strconv.ParseUint(p.vendor, 16, 16)
			device, err2 := strconv.ParseUint(p.device, 16, 16)
			if err == nil && err2 == nil {
				known[nics.Card{Vendor: uint16(vendor), Device: uint16(device)}] = true
			}
		}
	}
	for _, g := range groups {
		for _, text := range g.Cards {
			c, err := nics.ParseCard(text)
			if err != nil {
				return nil, fmt.Errorf("group %s: %w", g.Name, err)
			}
			known[c] = true
		}
	}
	return slices.SortedFunc(maps.Keys(known), func(a, b nics.Card) int { return strings.Compare(a.String(), b.String()) }), nil
}

// needsOf returns, for each driver's file, the files that a machine with its card needs:
// the driver and its dependencies, modules that depend on it and theirs, since a driver
// may ask for them at run time (mlx4_core for mlx4_en), and of the groups what any of
// these may ask for.
func (x *moduleIndex) needsOf(groups []kernelconfig.Group, files []string, drivers []cardDriver) map[string]map[string]bool {
	closures := make(map[string]map[string]bool, len(files))
	for _, file := range files {
		closures[file] = make(map[string]bool)
		x.add(moduleName(file), closures[file])
	}
	needs := make(map[string]map[string]bool, len(drivers))
	for _, d := range drivers {
		need := maps.Clone(closures[d.file])
		for _, file := range files {
			if closures[file][d.file] {
				maps.Copy(need, closures[file])
			}
		}
		for _, g := range groups {
			if g.With != "" && (need[x.file[g.With]] || x.file[g.With] == "") {
				for _, file := range x.choose([]kernelconfig.Group{g}) {
					need[file] = true
				}
			}
		}
		needs[d.file] = need
	}
	return needs
}
