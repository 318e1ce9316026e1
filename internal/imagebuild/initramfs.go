package imagebuild

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"viver.lan/kernelconfig"
)

// writeInitramfs writes the initramfs: the Go part as build.sh made it, then
// those of the tree's own modules that a machine needs to reach its network, in
// one compressed stream. The kernel unpacks archive after archive from a stream
// (buffer-format.rst).
func (m *bootModules) writeInitramfs(ctx context.Context, w io.Writer, config kernelconfig.Config, goPart string, progress func(done, total int64)) error {
	return compressInitramfs(ctx, w, config, func(w io.Writer) error {
		return m.writeAfter(ctx, w, goPart, progress)
	})
}

// writeDrivers writes the other modules in a form that the kernel unpacks as a
// second initramfs, behind the first.
func (m *bootModules) writeDrivers(ctx context.Context, w io.Writer, config kernelconfig.Config, advance func(int64)) error {
	return compressInitramfs(ctx, w, config, func(w io.Writer) error {
		c := newCPIOWriter(w)
		if err := m.write(ctx, c, m.late, advance); err != nil {
			return fmt.Errorf("modules in /%s: %w", m.index.dir, err)
		}
		return c.end()
	})
}

// writeAfter writes the Go part, and after it the archive of the modules.
func (m *bootModules) writeAfter(ctx context.Context, w io.Writer, goPart string, progress func(done, total int64)) error {
	base, err := os.Open(goPart)
	if err != nil {
		return fmt.Errorf("read the Go part of the initramfs: %w", err)
	}
	defer base.Close()
	fi, err := base.Stat()
	if err != nil {
		return err
	}
	done, total := fi.Size(), fi.Size()+m.size(m.early)
	c := newCPIOWriter(w)
	if _, err := io.Copy(c.out, base); err != nil {
		return fmt.Errorf("copy the Go part of the initramfs: %w", err)
	}
	if err := c.out.pad(); err != nil {
		return err
	}
	progress(done, total)
	err = m.write(ctx, c, m.early, func(n int64) {
		done += n
		progress(done, total)
	})
	if err == nil {
		err = m.writeTables(c)
	}
	if err != nil {
		return fmt.Errorf("modules in /%s: %w", m.index.dir, err)
	}
	return c.end()
}

// moduleTables are the depmod tables that programs without libkmod read.
var moduleTables = []string{
	"modules.dep", "modules.alias", "modules.softdep", "modules.order", "modules.devname", "modules.builtin",
}

// bootModules are the modules that package kernelconfig lists: files below the
// index's directory.
type bootModules struct {
	tree        *Tree
	index       *moduleIndex
	early, late []string
	written     map[string]bool // firmware
}

// bootModules chooses the modules of kernel k.
func (t *Tree) bootModules(k Kernel) (*bootModules, error) {
	groups, err := kernelconfig.Groups()
	if err != nil {
		return nil, err
	}
	index, err := t.moduleIndex(k)
	if err != nil {
		return nil, err
	}
	m := &bootModules{tree: t, index: index, written: make(map[string]bool)}
	m.early, m.late = index.split(groups)
	return m, nil
}

// size is the sum of the files as they are in the tree, for the progress bar.
func (m *bootModules) size(files []string) int64 {
	var n int64
	for _, file := range files {
		n += m.fileSize(file)
	}
	return n
}

func (m *bootModules) fileSize(file string) int64 {
	e, err := m.tree.lookup(m.index.dir + "/" + file)
	if err != nil {
		return 0 // reading it will say so
	}
	return e.header.Size
}

// write adds modules, and of their firmware what was not written before.
func (m *bootModules) write(ctx context.Context, c *cpioWriter, files []string, advance func(int64)) error {
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := m.tree.readPlain(m.index.dir + "/" + file)
		if err != nil {
			return err
		}
		if err := c.file(m.index.dir+"/"+plainName(file), data); err != nil {
			return err
		}
		for _, name := range moduleFirmware(data) {
			if !m.written[name] {
				m.written[name] = true
				if err := m.tree.writeFirmware(c, name); err != nil {
					return err
				}
			}
		}
		advance(m.fileSize(file))
	}
	return nil
}

// writeTables adds the tables about all the modules, the late ones too: so a
// machine knows which of them its devices ask for.
func (m *bootModules) writeTables(c *cpioWriter) error {
	chosen := append(slices.Clone(m.early), m.late...)
	for _, name := range moduleTables {
		data, err := m.tree.optional(m.index.dir + "/" + name)
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
	modinfo, err := m.tree.optional(m.index.dir + "/modules.builtin.modinfo")
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

// writeFirmware adds a firmware file when the tree has it, decompressed
// because not every kernel can do that itself.
func (t *Tree) writeFirmware(c *cpioWriter, name string) error {
	file := clean("lib/firmware/" + name)
	if !strings.HasPrefix(file, "lib/firmware/") {
		return nil
	}
	for _, ending := range append([]string{""}, compressions...) {
		data, err := t.readPlain(file + ending)
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
