package bootfiles

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/decompress"
	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
	"viver.lan/kernelconfig"
)

// WriteInitramfs writes the initramfs: the owner's public key as a file, the Go part,
// which the file goPart holds as an archive packed with zstd, and those of the Linux's own
// modules that each machine needs to reach its network. The kernel unpacks archive after
// archive, each of them compressed or not (buffer-format.rst). A nil config stands for a
// recent kernel's.
func (m *Modules) WriteInitramfs(ctx context.Context, w io.Writer, owner []byte, config kernelconfig.Config, goPart string, progress func(done, total int64)) error {
	if err := writeOwner(w, owner); err != nil {
		return err
	}
	// The kernel takes a plain archive at a multiple of four bytes only, and such a one
	// may follow; it skips zeros there. Behind the owner's key there may be none: what
	// follows a plain archive has to begin at such a place, too.
	padded := &padder{w: w}
	if err := writeGoPart(ctx, padded, config, goPart); err != nil {
		return fmt.Errorf("the Go part of the initramfs: %w", err)
	}
	err := compressInitramfs(ctx, padded, config, forFirmware, 0, func(w io.Writer) error {
		return m.writeArchive(ctx, w, m.early, m.firmware, m.writeTables, progress)
	})
	if err != nil {
		return err
	}
	_, err = padded.Write(make([]byte, -padded.at&3))
	return err
}

// writeGoPart copies the Go part as it is, or packs it again for a kernel that cannot
// unpack zstd.
func writeGoPart(ctx context.Context, w io.Writer, config kernelconfig.Config, goPart string) error {
	packed, err := os.Open(goPart)
	if err != nil {
		return err
	}
	defer packed.Close()
	if takesZstd(config) {
		_, err := io.Copy(w, packed)
		return err
	}
	plain, err := zstd.NewReader(packed)
	if err != nil {
		return err
	}
	defer plain.Close()
	return compressInitramfs(ctx, w, config, forFirmware, 0, func(w io.Writer) error {
		_, err := plain.WriteTo(w)
		return err
	})
}

// WriteDrivers writes the modules that no network needs in a form that the kernel
// unpacks as a further initramfs, behind the first.
func (m *Modules) WriteDrivers(ctx context.Context, w io.Writer, config kernelconfig.Config, progress func(done, total int64)) error {
	return compressInitramfs(ctx, w, config, forSwarm, 0, func(w io.Writer) error {
		return m.writeArchive(ctx, w, m.late, maps.Clone(m.firmware), nothingMore, progress)
	})
}

// nothingMore adds nothing to an archive.
func nothingMore(*archive) error { return nil }

// writeArchive writes an archive of modules, of their firmware what is not in there,
// which it enters, and what more adds to it.
func (m *Modules) writeArchive(ctx context.Context, w io.Writer, files []string, there map[string]bool, more func(*archive) error, progress func(done, total int64)) error {
	c := newArchive(w)
	err := m.write(ctx, c, files, there, progress)
	if err == nil {
		err = more(c)
	}
	if err != nil {
		return fmt.Errorf("modules in /%s: %w", m.index.dir, err)
	}
	return c.close()
}

// moduleTables are the depmod tables that programs without libkmod read.
var moduleTables = []string{
	"modules.dep", "modules.alias", "modules.softdep", "modules.order", "modules.devname", "modules.builtin",
}

// Modules are those of a kernel's modules that package kernelconfig lists.
type Modules struct {
	linux       fs.FS
	index       *moduleIndex
	early, late []string // files below the index's directory
	nics        []family
	covered     []nics.Card     // whose drivers are all early
	firmware    map[string]bool // what the initramfs has of it
}

// ChooseModules chooses the modules of kernel k.
func ChooseModules(linux fs.FS, k Kernel) (*Modules, error) {
	groups, err := kernelconfig.Groups()
	if err != nil {
		return nil, err
	}
	index, err := readModuleIndex(linux, k)
	if err != nil {
		return nil, err
	}
	m := &Modules{linux: linux, index: index, firmware: make(map[string]bool)}
	var forCards []string
	m.early, forCards, m.late = index.split(groups)
	m.nics, m.covered, err = index.families(groups, m.early, forCards)
	return m, err
}

// PartOf returns the image's file that has a module: manifest.Initramfs, NICs or
// Drivers; "" is that none has.
func (m *Modules) PartOf(module string) string {
	file := m.index.file[strings.ReplaceAll(module, "-", "_")]
	has := func(files []string) bool { return file != "" && slices.Contains(files, file) }
	switch {
	case has(m.early):
		return manifest.Initramfs
	case slices.ContainsFunc(m.nics, func(f family) bool { return has(f.files) }):
		return manifest.NICs
	case has(m.late):
		return manifest.Drivers
	}
	return ""
}

// size is a file's as it is in the Linux, in bytes; 0 when it cannot be told, which
// reading it will say.
func (m *Modules) size(file string) int64 {
	fi, err := fs.Stat(m.linux, m.index.dir+"/"+file)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// sizes is the sum of those of files.
func (m *Modules) sizes(files []string) (sum int64) {
	for _, file := range files {
		sum += m.size(file)
	}
	return sum
}

// write adds modules, and of their firmware what is not there.
func (m *Modules) write(ctx context.Context, c *archive, files []string, there map[string]bool, progress func(done, total int64)) error {
	var done int64
	total := m.sizes(files)
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := readDecompressed(m.linux, m.index.dir+"/"+file)
		if err != nil {
			return err
		}
		if err := c.file(m.index.home+"/"+decompressedName(file), data); err != nil {
			return err
		}
		for _, name := range moduleFirmware(data) {
			if !there[name] {
				there[name] = true
				if err := writeFirmware(m.linux, c, name); err != nil {
					return err
				}
			}
		}
		done += m.size(file)
		progress(done, total)
	}
	return nil
}

// writeTables adds the tables about all the modules, those of the other files too: so
// a machine knows which of them its devices ask for.
func (m *Modules) writeTables(c *archive) error {
	chosen := append(slices.Clone(m.early), m.late...)
	for _, f := range m.nics {
		chosen = append(chosen, f.files...)
	}
	for _, name := range moduleTables {
		data, err := optional(m.linux, m.index.dir+"/"+name)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if err := c.file(m.index.home+"/"+name, m.index.table(name, data, chosen)); err != nil {
			return err
		}
	}
	if err := m.writeConf(c); err != nil {
		return err
	}
	// Fields that end in NUL, about the kernel itself: copied whole.
	modinfo, err := optional(m.linux, m.index.dir+"/modules.builtin.modinfo")
	if err != nil || modinfo == nil {
		return err
	}
	return c.file(m.index.dir+"/modules.builtin.modinfo", modinfo)
}

// confDirs are where modprobe.d(5) has its files; of several with one name the first counts.
var confDirs = []string{"etc/modprobe.d", "usr/local/lib/modprobe.d", "lib/modprobe.d", "usr/lib/modprobe.d"}

// writeConf adds what the Linux says of its modules: options, and which ones not to load.
func (m *Modules) writeConf(c *archive) error {
	there := make(map[string]bool)
	for _, dir := range confDirs {
		files, err := fs.Glob(m.linux, dir+"/*.conf")
		if err != nil {
			return err
		}
		for _, file := range files {
			name := path.Base(file)
			data, err := optional(m.linux, file)
			if err != nil {
				return err
			}
			if data != nil && !there[name] { // a link to /dev/null hides the others of its name
				if err := c.file("etc/modprobe.d/"+name, data); err != nil {
					return err
				}
			}
			there[name] = true
		}
	}
	return nil
}

// moduleFirmware returns the firmware files a module says it may ask for.
func moduleFirmware(module []byte) []string {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil // the kernel will judge what it is
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil
	}
	data, err := section.Data()
	if err != nil {
		return nil
	}
	var names []string
	for _, field := range strings.Split(string(data), "\x00") {
		if name, ok := strings.CutPrefix(field, "firmware="); ok {
			names = append(names, name)
		}
	}
	return names
}

// writeFirmware adds a firmware file when the Linux has it, decompressed
// because not every kernel can do that itself.
func writeFirmware(linux fs.FS, c *archive, name string) error {
	const home = "lib/firmware/"
	file := path.Join(home, name)
	if !strings.HasPrefix(file, home) {
		return nil
	}
	for _, place := range []string{home, "usr/lib/firmware/", nixProfile + "/firmware/"} {
		for _, ending := range append([]string{""}, decompress.Endings...) {
			data, err := readDecompressed(linux, place+strings.TrimPrefix(file, home)+ending)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			return c.file(file, data)
		}
	}
	return nil
}
