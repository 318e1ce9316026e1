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
	"strings"

	"viver.lan/kernelconfig"
)

// writeInitramfs writes the initramfs of kernel k: the Go part as build.sh
// made it, then the tree's own modules, in one compressed stream. The kernel
// unpacks archive after archive from a stream (buffer-format.rst).
func (t *Tree) writeInitramfs(ctx context.Context, w io.Writer, k Kernel, config kernelconfig.Config, goPart string, progress func(done, total int64)) error {
	groups, err := kernelconfig.Groups()
	if err != nil {
		return err
	}
	index, err := t.moduleIndex(k)
	if err != nil {
		return err
	}
	m := initramfsModules{tree: t, index: index, chosen: index.choose(groups)}
	return compressInitramfs(ctx, w, config, func(w io.Writer) error {
		return m.writeAfter(ctx, w, goPart, progress)
	})
}

// writeAfter writes the Go part, and after it the archive of the modules.
func (m initramfsModules) writeAfter(ctx context.Context, w io.Writer, goPart string, progress func(done, total int64)) error {
	base, err := os.Open(goPart)
	if err != nil {
		return fmt.Errorf("Go part of the initramfs: %w", err)
	}
	defer base.Close()
	fi, err := base.Stat()
	if err != nil {
		return err
	}
	done, total := fi.Size(), fi.Size()+m.size()
	c := newCPIOWriter(w)
	if c.at, err = io.Copy(w, base); err != nil {
		return fmt.Errorf("Go part of the initramfs: %w", err)
	}
	if err := c.pad(512); err != nil {
		return err
	}
	progress(done, total)
	err = m.write(ctx, c, func(n int64) {
		done += n
		progress(done, total)
	})
	if err != nil {
		return fmt.Errorf("modules in /%s: %w", m.index.dir, err)
	}
	return c.end()
}

// moduleTables are the depmod tables that programs without libkmod read.
var moduleTables = []string{
	"modules.dep", "modules.alias", "modules.softdep", "modules.order", "modules.devname", "modules.builtin",
}

// initramfsModules are the modules that package kernelconfig lists.
type initramfsModules struct {
	tree   *Tree
	index  *moduleIndex
	chosen []string // files below the index's directory
}

// size is the sum of the files as they are in the tree, for the progress bar.
func (m initramfsModules) size() int64 {
	var n int64
	for _, file := range m.chosen {
		n += m.fileSize(file)
	}
	return n
}

func (m initramfsModules) fileSize(file string) int64 {
	e, err := m.tree.lookup(m.index.dir + "/" + file)
	if err != nil {
		return 0 // reading it will say so
	}
	return e.header.Size
}

// write adds the modules, their firmware and the tables about them.
func (m initramfsModules) write(ctx context.Context, c *cpioWriter, advance func(int64)) error {
	firmware := make(map[string]bool)
	for _, file := range m.chosen {
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
			if !firmware[name] {
				firmware[name] = true
				if err := m.tree.writeFirmware(c, name); err != nil {
					return err
				}
			}
		}
		advance(m.fileSize(file))
	}
	return m.writeTables(c)
}

func (m initramfsModules) writeTables(c *cpioWriter) error {
	for _, name := range moduleTables {
		data, err := m.tree.optional(m.index.dir + "/" + name)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if err := c.file(m.index.dir+"/"+name, m.index.table(name, data, m.chosen)); err != nil {
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
