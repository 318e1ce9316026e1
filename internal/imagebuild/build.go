package imagebuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
	"viver.lan/kernelconfig"
)

// Names of the parts that build.sh ships beside viver, in the lib directory.
const (
	// GoInitramfs is the Go part of every initramfs, an uncompressed cpio.
	GoInitramfs = "initramfs-go.cpio"
	// BootPrograms is the directory with the boot programs.
	BootPrograms = "boot"
)

// DefaultLevel is the zstd level of the root file system. On a Debian root
// level 12 takes four times the time of 9 for the same size, and 15, the
// default of mksquashfs, seven times for 5 % less.
const DefaultLevel = 9

// stopGrace is how long an interrupted build may take to end by itself.
const stopGrace = 5 * time.Second

// Progress is told how far a task has come, in bytes; total is 0 when it is
// not known. It is called from one goroutine at a time.
type Progress func(task string, done, total int64)

// Config says what to build from what.
type Config struct {
	// Source is a directory, "/" or an uncompressed tar archive.
	Source string
	// Output is the image directory to make. An image that is already there
	// is replaced when the new one is complete.
	Output string
	// Lib holds GoInitramfs and BootPrograms.
	Lib string
	// Key is the owner's: it signs the manifest, and its public half goes into
	// the initramfs.
	Key sign.PrivateKey
	// Keep lists patterns of what travels in spite of a rule that leaves it out:
	// those of path.Match, below the root, each with all that lies below it.
	Keep []string
	// Kernel is the release to boot or its file, in the source or on this host;
	// "" for the newest that is found.
	Kernel string
	// NoModules leaves the kernel's modules out of the root file system; the
	// initramfs has its own. For roots whose programs load none.
	NoModules bool
	// Level is the zstd level of the root file system, 0 for DefaultLevel.
	Level int
	// PieceLength in bytes, 0 for the default of package metainfo.
	PieceLength int64
	// Created is the build time put into the manifest.
	Created time.Time
	// Progress may be nil.
	Progress Progress
	// Note receives sentences for people, such as what was left out; may be nil.
	Note func(string)
}

// Build makes an image directory. A tree that cannot boot gives a *Problems.
func Build(ctx context.Context, c Config) (*manifest.Manifest, error) {
	c = c.withDefaults()
	if c.Key.IsZero() {
		return nil, errors.New("an image needs an owner's key to be signed with")
	}
	if err := c.checkLib(); err != nil {
		return nil, err
	}
	out, err := newOutput(c.Output)
	if err != nil {
		return nil, err
	}
	defer out.discard()
	var m *manifest.Manifest
	err = outlast(ctx, stopGrace, func() (err error) {
		m, err = c.build(ctx, out.dir)
		return err
	})
	if err == nil {
		err = out.commit()
	}
	if err != nil {
		return nil, explainSpace(err, filepath.Dir(c.Output))
	}
	return m, nil
}

func (c Config) withDefaults() Config {
	if c.Level == 0 {
		c.Level = DefaultLevel
	}
	if c.PieceLength == 0 {
		c.PieceLength = metainfo.DefaultPieceLength
	}
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	return c
}

// checkLib says what is missing from the lib directory before any work is done.
func (c Config) checkLib() error {
	need := []string{GoInitramfs}
	for _, name := range bootPrograms {
		need = append(need, filepath.Join(BootPrograms, name))
	}
	for _, name := range need {
		if _, err := os.Stat(filepath.Join(c.Lib, name)); err != nil {
			return fmt.Errorf("part of VIVER is missing: %w; ./build.sh makes it", err)
		}
	}
	return nil
}

func (c Config) build(ctx context.Context, dir string) (*manifest.Manifest, error) {
	c.Progress("read the tree", 0, 0)
	tree, err := Scan(ctx, c.Source, c.Keep, c.Output, dir)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	kernel, config, err := tree.check(c.Kernel)
	if err != nil {
		return nil, err
	}
	tree.dropOtherKernels(kernel)

	if err := c.copyBoot(tree, kernel, dir); err != nil {
		return nil, err
	}
	if err := c.writeEarlyUserspace(ctx, tree, kernel, config, dir); err != nil {
		return nil, err
	}
	if c.NoModules {
		if real, err := tree.resolve("lib/modules"); err == nil {
			tree.prune(real)
		}
	}
	if err := tree.writeSquashfs(ctx, filepath.Join(dir, manifest.Root), c.Level, c.counter("root file system", tree.size())); err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	m, err := c.describe(ctx, tree, kernel, dir)
	if err != nil {
		return nil, err
	}
	for _, note := range append(tree.notes, tree.report.lines()...) {
		c.Note(note)
	}
	return m, writeTo(filepath.Join(dir, ReportFile), tree.report.write)
}

// writeEarlyUserspace writes the initramfs and the drivers that follow it.
func (c Config) writeEarlyUserspace(ctx context.Context, t *Tree, k Kernel, config kernelconfig.Config, dir string) error {
	modules, err := t.bootModules(k)
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	err = writeTo(filepath.Join(dir, manifest.Initramfs), func(w io.Writer) error {
		if err := writeOwner(w, c.Key.Public()); err != nil {
			return err
		}
		return modules.writeInitramfs(ctx, w, config, filepath.Join(c.Lib, GoInitramfs), func(done, total int64) { c.Progress("initramfs", done, total) })
	})
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	err = writeTo(filepath.Join(dir, manifest.Drivers), func(w io.Writer) error {
		return modules.writeDrivers(ctx, w, config, c.counter("drivers", modules.size(modules.late)))
	})
	if err != nil {
		return fmt.Errorf("drivers: %w", err)
	}
	return nil
}

// counter returns a function that adds up a task's bytes.
func (c Config) counter(task string, total int64) func(int64) {
	var done int64
	return func(n int64) {
		done += n
		c.Progress(task, done, total)
	}
}

// dropOtherKernels leaves out the kernels that will not be booted: their
// modules weigh hundreds of megabytes.
func (t *Tree) dropOtherKernels(keep Kernel) {
	kernels, _ := t.kernels()
	for _, k := range kernels {
		if k.Release == keep.Release {
			continue
		}
		t.note("left out kernel %s", k.Release)
		for _, name := range []string{k.Path, k.modulesDir(), "boot/config-" + k.Release, "boot/System.map-" + k.Release} {
			if real, err := t.resolve(name); err == nil {
				t.prune(real)
			}
		}
	}
}

// copyBoot copies the kernel into the image, and the boot programs that go
// with it.
func (c Config) copyBoot(t *Tree, k Kernel, dir string) error {
	kernel, err := t.kernelImage(k.Path)
	if err != nil {
		return err
	}
	if err := copyTo(filepath.Join(dir, manifest.Kernel), bytes.NewReader(kernel)); err != nil {
		return err
	}
	boot := filepath.Join(dir, manifest.BootDir)
	if err := os.Mkdir(boot, 0o755); err != nil {
		return err
	}
	return c.writePrograms(t, k, kernel, boot)
}

// payload lists the files of the image in dir in the order of the torrent.
func payload(dir string) []string {
	names := []string{manifest.Root, manifest.Kernel, manifest.Initramfs, manifest.Drivers}
	for _, name := range bootPrograms {
		name = manifest.BootDir + "/" + name
		// A pair from the tree may come without the program for keys.
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// describe writes the metainfo, the manifest and, as the last file of all, the
// owner's signature of it.
func (c Config) describe(ctx context.Context, t *Tree, k Kernel, dir string) (*manifest.Manifest, error) {
	m := &manifest.Manifest{
		Format:        manifest.Format,
		Name:          filepath.Base(c.Output),
		Created:       c.Created.UTC().Truncate(time.Second),
		Distribution:  t.distribution(),
		KernelRelease: k.Release,
		Arch:          "amd64", // parseBzImage has checked it
		PieceLength:   c.PieceLength,
	}
	var sources []metainfo.Source
	for _, name := range payload(dir) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := fileInfo(dir, name)
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, f)
		sources = append(sources, metainfo.Source{Name: name, Path: filepath.Join(dir, name)})
	}
	torrent, info, err := metainfo.Create(m.Name, sources, c.PieceLength, func(done int64) { c.Progress("pieces", done, m.Size()) })
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.Infohash = info.Infohash
	if err := durable.WriteFile(filepath.Join(dir, manifest.Metainfo), torrent, 0o644); err != nil {
		return nil, err
	}
	var text strings.Builder
	if err := m.Write(&text); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(filepath.Join(dir, manifest.File), []byte(text.String()), 0o644); err != nil {
		return nil, err
	}
	signature := c.Key.Sign(sign.Manifest, []byte(text.String()))
	return m, durable.WriteFile(filepath.Join(dir, manifest.Signature), signature, 0o644)
}

// distribution returns PRETTY_NAME of os-release(5), or a plain word.
func (t *Tree) distribution() string {
	for _, p := range []string{"etc/os-release", "usr/lib/os-release"} {
		data, err := t.readFile(p)
		if err != nil {
			continue
		}
		name := ""
		eachLine(data, func(line string) {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				name = strings.Trim(v, `"'`)
			}
		})
		if name != "" {
			return name
		}
	}
	return "unknown"
}

func fileInfo(dir, name string) (manifest.FileInfo, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return manifest.FileInfo{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return manifest.FileInfo{}, err
	}
	return manifest.FileInfo{Name: name, Size: n, SHA256: manifest.Digest(h.Sum(nil))}, nil
}
