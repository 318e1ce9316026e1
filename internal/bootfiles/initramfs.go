package bootfiles

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"viver.lan/internal/decompress"
	"viver.lan/kernelconfig"
)

// WriteInitramfs writes the initramfs: the owner's public key as a file, and in one
// compressed stream the Go part, an archive in the file goPart, and those of the
// Linux's own modules that a machine needs to reach its network. The kernel unpacks
// archive after archive, compressed or not (buffer-format.rst). A nil config stands
// for a recent kernel's.
func (m *Modules) WriteInitramfs(ctx context.Context, w io.Writer, owner []byte, config kernelconfig.Config, goPart string, progress func(done, total int64)) error {
	base, err := os.Open(goPart)
	if err != nil {
		return fmt.Errorf("read the Go part: %w", err)
	}
	defer base.Close()
	if err := writeOwner(w, owner); err != nil {
		return err
	}
	return compressInitramfs(ctx, w, config, func(w io.Writer) error {
		if err := copyArchive(w, base); err != nil {
			return fmt.Errorf("copy the Go part: %w", err)
		}
		return m.writeArchive(ctx, w, m.early, m.writeTables, progress)
	})
}

// WriteDrivers writes the other modules in a form that the kernel unpacks as a
// second initramfs, behind the first.
func (m *Modules) WriteDrivers(ctx context.Context, w io.Writer, config kernelconfig.Config, progress func(done, total int64)) error {
	return compressInitramfs(ctx, w, config, func(w io.Writer) error {
		return m.writeArchive(ctx, w, m.late, func(*archive) error { return nil }, progress)
	})
}

// writeArchive writes an archive of modules and what more adds to it.
func (m *Modules) writeArchive(ctx context.Context, w io.Writer, files []string, more func(*archive) error, progress func(done, total int64)) error {
	c := newArchive(w)
	err := m.write(ctx, c, files, progress)
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
	early, late []string        // files below the index's directory
	written     map[string]bool // firmware
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
	m := &Modules{linux: linux, index: index, written: make(map[string]bool)}
	m.early, m.late = index.split(groups)
	return m, nil
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

// write adds modules, and of their firmware what was not written before.
func (m *Modules) write(ctx context.Context, c *archive, files []string, progress func(done, total int64)) error {
	var done, total int64
	for _, file := range files {
		total += m.size(file)
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := readDecompressed(m.linux, m.index.dir+"/"+file)
		if err != nil {
			return err
		}
		if err := c.file(m.index.dir+"/"+decompressedName(file), data); err != nil {
			return err
		}
		for _, name := range moduleFirmware(data) {
			if !m.written[name] {
				m.written[name] = true
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

// writeTables adds the tables about all the modules, the late ones too: so a
// machine knows which of them its devices ask for.
func (m *Modules) writeTables(c *archive) error {
	chosen := append(slices.Clone(m.early), m.late...)
	for _, name := range moduleTables {
		data, err := optional(m.linux, m.index.dir+"/"+name)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if err := c.file(m.index.dir+"/"+name, m.index.table(name, data, chosen)); err != nil {
			return err
		}
	}
	// Fields that end in NUL, about the kernel itself: copied whole.
	modinfo, err := optional(m.linux, m.index.dir+"/modules.builtin.modinfo")
	if err != nil || modinfo == nil {
		return err
	}
	return c.file(m.index.dir+"/modules.builtin.modinfo", modinfo)
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
	file := path.Join("lib/firmware", name)
	if !strings.HasPrefix(file, "lib/firmware/") {
		return nil
	}
	for _, ending := range append([]string{""}, decompress.Endings...) {
		data, err := readDecompressed(linux, file+ending)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return c.file(file, data)
	}
	return nil
}
