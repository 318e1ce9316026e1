package imagebuild

import (
	"fmt"
	"io"
	"path"
)

// cpioWriter writes an archive in the "newc" format, the only one the kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). Owners
// are root and times are zero, so equal content gives equal bytes.
type cpioWriter struct {
	w    io.Writer
	at   int64
	ino  uint32
	dirs map[string]bool
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: make(map[string]bool)}
}

const (
	cpioDir  = 0o040755
	cpioFile = 0o100644
	cpioEnd  = "TRAILER!!!"
)

// file adds a regular file, and the directories it lies in.
func (c *cpioWriter) file(name string, data []byte) error {
	if err := c.dir(path.Dir(name)); err != nil {
		return err
	}
	return c.member(name, cpioFile, data)
}

// dir adds a directory and its parents, each of them once.
func (c *cpioWriter) dir(name string) error {
	if name == "." || c.dirs[name] {
		return nil
	}
	if err := c.dir(path.Dir(name)); err != nil {
		return err
	}
	c.dirs[name] = true
	return c.member(name, cpioDir, nil)
}

// end finishes the archive. What the writer has written is then a multiple of
// 512 bytes, so that another archive may follow it.
func (c *cpioWriter) end() error {
	if err := c.member(cpioEnd, 0, nil); err != nil {
		return err
	}
	return c.pad(512)
}

func (c *cpioWriter) member(name string, mode uint32, data []byte) error {
	ino, links := uint32(0), 1
	if name != cpioEnd {
		c.ino++
		ino = c.ino
	}
	if mode == cpioDir {
		links = 2
	}
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		ino, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	if err := c.write([]byte(header + name + "\x00")); err != nil {
		return err
	}
	if err := c.pad(4); err != nil {
		return err
	}
	if err := c.write(data); err != nil {
		return err
	}
	return c.pad(4)
}

func (c *cpioWriter) pad(to int64) error {
	return c.write(make([]byte, (to-c.at%to)%to))
}

func (c *cpioWriter) write(p []byte) error {
	n, err := c.w.Write(p)
	c.at += int64(n)
	return err
}
