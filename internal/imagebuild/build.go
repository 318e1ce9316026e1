// Package imagebuild turns an installed Linux into a diskless image. It puts
// together what other packages do:
//
//	source --imagesource, imagetree--> tree --bootfiles.Check--> kernel, or what is missing
//	tree --bootwork--> tree with the stamps of what no boot needs to do again
//	tree --mksquashfs--> root.squashfs [--squashdelta--> one that shares the pieces of an earlier image]
//	kernel, modules, boot programs --bootfiles--> vmlinuz, initramfs.img, nics.img, drivers.img, boot/
//	these files --imagedir.Describe--> image.torrent, manifest.json, manifest.json.minisig
//
// It reads the source and never writes to it: what stays out of an image is left
// out on the way and reported (package exclude, docs/images.md). It does not install
// distributions (see images/) and needs no Go toolchain. The invariant: a build that
// fails or is killed leaves what was there before.
package imagebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/bootwork"
	"viver.lan/internal/distribution"
	"viver.lan/internal/durable"
	"viver.lan/internal/exclude"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/imagesource"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/manifest"
	"viver.lan/internal/rootfs"
	"viver.lan/internal/sign"
	"viver.lan/kernelconfig"
)

// Names of the parts that build.sh ships beside viver, in the lib directory.
const (
	// GoInitramfs is the Go part of every initramfs, an archive packed with zstd.
	GoInitramfs = "initramfs-go.cpio.zst"
	// programsDir is the directory with the boot programs.
	programsDir = "boot"
)

// DefaultLevel is the zstd level of the root file system. On a Debian root
// level 12 takes four times the time of 9 for the same size, and 15, the
// default of mksquashfs, seven times for 5 % less.
const DefaultLevel = 9

// CheckLevel says of a level that zstd has none such.
func CheckLevel(level int) error {
	if level < 1 || level > 22 {
		return fmt.Errorf("zstd has the levels 1 to 22, not %d", level)
	}
	return nil
}

// stopGrace is how long an interrupted build may take to end by itself.
const stopGrace = 5 * time.Second

// Config says what to build from what.
type Config struct {
	// Source is what package imagesource reads, such as a directory or an archive.
	Source string
	// Ref chooses one of several images of a container in the source.
	Ref string
	// Root chooses one of several installed Linuxes on a disk.
	Root string
	// Passphrase opens what is encrypted on a disk; empty for none.
	Passphrase []byte
	// Output is the image directory to make. An image that is already there
	// is replaced when the new one is complete.
	Output string
	// Lib holds GoInitramfs and, in "boot", the boot programs.
	Lib string
	// Key is the owner's: it signs the manifest, and its public half goes into
	// the initramfs.
	Key sign.PrivateKey
	// Choice is what is in the image otherwise than the rules of package exclude say.
	Choice exclude.Choice
	// First are files that the root file system begins with, in this order: those
	// that a boot reads (package bootprofile). Those that the source lacks are counted
	// in a note.
	First []string
	// Separate gives each file of the root file system blocks of its own, which makes
	// it a seventeenth larger. What a machine reads of such an image tells
	// exactly which files it read.
	Separate bool
	// IPXE is the file of an iPXE that boots UEFI machines over the network in place of
	// shim and GRUB, and IPXEShim that of the shim in front of it; "" for none.
	IPXE, IPXEShim string
	// Kernel is the release to boot or its file, in the source or on this host;
	// "" for the newest that is found.
	Kernel string
	// NoModules leaves the kernel's modules out of the root file system; the
	// initramfs has its own. For roots whose programs load none.
	NoModules bool
	// Level is the zstd level of the root file system, 0 for DefaultLevel.
	Level int
	// Onto is an image of the same owner whose pieces the new one shares where the
	// content is the same; "" for none.
	Onto string
	// PieceLength in bytes, 0 for that of Onto, or else what suits the
	// size of the image.
	PieceLength int64
	// Created is the build time put into the manifest.
	Created time.Time
	// Progress is told how far a task has come, in bytes; total is 0 when it is not
	// known. It is called from one goroutine at a time and may be nil.
	Progress func(task string, done, total int64)
	// Note receives sentences for people, such as what was left out; may be nil.
	Note func(string)
}

// Build makes an image directory.
func Build(ctx context.Context, c Config) (*manifest.Manifest, error) {
	c = c.withDefaults()
	if c.Key.IsZero() {
		return nil, errors.New("an image needs an owner's key to be signed with")
	}
	if err := CheckLevel(c.Level); err != nil {
		return nil, err
	}
	if err := c.checkLib(); err != nil {
		return nil, err
	}
	ipxe, err := c.readIPXE()
	if err != nil {
		return nil, err
	}
	old, err := c.openBase(ctx)
	if err != nil {
		return nil, err
	}
	out, err := imagedir.Create(c.Output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	var m *manifest.Manifest
	err = runWithGrace(ctx, stopGrace, func() (err error) {
		m, err = c.build(ctx, ipxe, old, out.Path)
		return err
	})
	if err == nil {
		err = out.Commit()
	}
	if err != nil {
		return nil, durable.ExplainSpace(err, filepath.Dir(c.Output))
	}
	return m, nil
}

func (c Config) withDefaults() Config {
	if c.Level == 0 {
		c.Level = DefaultLevel
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
	for _, name := range bootfiles.Programs() {
		need = append(need, filepath.Join(programsDir, name))
	}
	for _, name := range need {
		if _, err := os.Stat(filepath.Join(c.Lib, name)); err != nil {
			return fmt.Errorf("part of VIVER is missing: %w; ./build.sh makes it", err)
		}
	}
	return nil
}

// readIPXE reads the owner's iPXE for UEFI, nil if there is none.
func (c Config) readIPXE() (*bootfiles.UEFIiPXE, error) {
	switch {
	case c.IPXE != "":
		return bootfiles.ReadUEFIiPXE(c.IPXE, c.IPXEShim)
	case c.IPXEShim != "":
		return nil, errors.New("a shim of iPXE, and no iPXE for it to start")
	}
	return nil, nil
}

func (c Config) build(ctx context.Context, ipxe *bootfiles.UEFIiPXE, old *base, dir string) (*manifest.Manifest, error) {
	c.Progress("read the tree", 0, 0)
	source, err := imagesource.Open(ctx, c.Source, imagesource.Options{Ref: c.Ref, Root: c.Root, Passphrase: c.Passphrase, Work: dir, Progress: c.Progress})
	if err != nil {
		return nil, err
	}
	defer source.Close()
	c.Note(fmt.Sprintf("%s is %s", c.Source, source.Kind))
	for _, note := range source.Notes {
		c.Note(note)
	}
	tree, err := source.Scan(ctx, &c.Choice, c.Output, dir)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	linux, err := bootfiles.Check(tree, c.Source, c.Kernel)
	if err != nil {
		return nil, err
	}
	notes := linux.Notes
	for _, pattern := range tree.Rules.Unmatched() {
		notes = append(notes, fmt.Sprintf("warning: --exclude /%s matches no file of the source", pattern))
	}
	notes = append(notes, takeKernel(tree, linux.Kernel)...)
	linkInit(tree, linux.Init)
	notes = append(notes, bootwork.Stamp(tree)...)
	notes = append(notes, securityNotes(tree)...)
	note, err := c.writeBoot(tree, linux.Kernel, dir)
	if err != nil {
		return nil, err
	}
	if note != "" {
		notes = append(notes, note)
	}
	if ipxe != nil {
		if err := ipxe.Write(filepath.Join(dir, manifest.BootDir)); err != nil {
			return nil, fmt.Errorf("boot program: %w", err)
		}
		notes = append(notes, ipxe.Notes()...)
	}
	if found := tree.First(ofKernel(c.First, linux.Kernel.Release)); len(c.First) > 0 {
		notes = append(notes, fmt.Sprintf("%d files of the profile lie first; %d are not in the source", found, len(c.First)-found))
	}
	if err := c.writeParts(ctx, tree, linux, dir); err != nil {
		return nil, err
	}
	if old != nil {
		shared, err := old.share(ctx, dir, c.task("compare with the old image"))
		if err != nil {
			return nil, fmt.Errorf("root file system: %w", err)
		}
		notes = append(notes, shared...)
	}
	m, err := c.describe(ctx, tree, linux.Kernel, dir)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if note, err = old.fetched(dir); err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	for _, note := range append(notes, tree.Report.Lines()...) {
		c.Note(note)
	}
	return m, writeTo(filepath.Join(dir, ReportFile), tree.Report.WriteJSON)
}

// moduleDir is the directory of a kernel's modules, with the release.
var moduleDir = regexp.MustCompile(`^((?:usr/)?lib/modules/)[^/]+/`)

// ofKernel has names of modules, of whatever kernel they were, be those of a release:
// there is a new one every few weeks, and it boots with the same modules.
func ofKernel(names []string, release string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = moduleDir.ReplaceAllString(name, "${1}"+strings.ReplaceAll(release, "$", "$$")+"/")
	}
	return out
}

// describe makes the files in dir an image, signed by its owner.
func (c Config) describe(ctx context.Context, tree *imagetree.Tree, k bootfiles.Kernel, dir string) (*manifest.Manifest, error) {
	m := &manifest.Manifest{
		Format:        manifest.Format,
		Name:          filepath.Base(c.Output),
		Created:       c.Created.UTC().Truncate(time.Second),
		Distribution:  cmp.Or(distribution.Of(tree).Name, "unknown"),
		KernelRelease: k.Release,
		Arch:          "amd64", // bootfiles takes no other kernel
		PieceLength:   c.PieceLength,
	}
	return m, imagedir.Describe(ctx, dir, m, c.Key, c.task("pieces"))
}

// task returns what shows the progress of one task.
func (c Config) task(name string) func(done, total int64) { return showFunc(c.Progress).task(name) }

// takeKernel makes the kernel that will be booted the only one of the tree: the
// modules of another weigh hundreds of megabytes. It says what it left out.
func takeKernel(tree *imagetree.Tree, kernel bootfiles.Kernel) (notes []string) {
	if kernel.Image != nil {
		tree.Add(kernel.Path, kernel.Image, kernel.ModTime)
	}
	others, _ := bootfiles.Kernels(tree)
	for _, k := range others {
		if k.Release == kernel.Release {
			continue
		}
		notes = append(notes, "left out kernel "+k.Release)
		for _, name := range k.Files() {
			tree.LeaveOut(exclude.OtherKernel, name)
		}
	}
	return notes
}

// linkInit makes the link by which a node finds an init that is elsewhere: that of
// NixOS, or a systemd without its package for /sbin/init.
func linkInit(tree *imagetree.Tree, program string) {
	if program == "" {
		return
	}
	const init = "sbin/init"
	tree.AddLink(init, "/"+program)
	tree.Report.Changed(imagetree.InitLinked, init+" -> /"+program, 0)
}

// writeBoot writes the kernel and the boot programs that go with it.
func (c Config) writeBoot(tree *imagetree.Tree, k bootfiles.Kernel, dir string) (note string, err error) {
	kernel, err := k.Read(tree)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, manifest.Kernel), kernel, 0o644); err != nil {
		return "", err
	}
	boot := filepath.Join(dir, manifest.BootDir)
	if err := os.Mkdir(boot, 0o755); err != nil {
		return "", err
	}
	return bootfiles.WritePrograms(tree, k, filepath.Join(c.Lib, programsDir), boot)
}

// writeParts writes what a build compresses. mksquashfs has work for all processors, but
// not always: the initramfs, whose parts keep one busy each, takes what is left.
func (c Config) writeParts(ctx context.Context, tree *imagetree.Tree, linux *bootfiles.Checked, dir string) error {
	root := func(ctx context.Context, show showFunc) error {
		options := rootfs.Options{Level: c.Level, Separate: c.Separate}
		if err := rootfs.Write(ctx, tree, filepath.Join(dir, manifest.Root), options, show.task("root file system")); err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		return nil
	}
	initramfs := func(ctx context.Context, show showFunc) error { return c.writeInitramfs(ctx, tree, linux, dir, show) }
	if !c.NoModules {
		return sideBySide(ctx, c.Progress, root, initramfs)
	}
	// The initramfs has what the root lacks.
	if err := initramfs(ctx, c.Progress); err != nil {
		return err
	}
	tree.LeaveOut(exclude.NoModules, path.Dir(linux.Kernel.Modules))
	return root(ctx, c.Progress)
}

// writeInitramfs writes the initramfs and, when that is known, the drivers that follow it.
func (c Config) writeInitramfs(ctx context.Context, tree *imagetree.Tree, linux *bootfiles.Checked, dir string, show showFunc) error {
	modules, err := bootfiles.ChooseModules(tree, linux.Kernel)
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	err = writeTo(filepath.Join(dir, manifest.Initramfs), func(w io.Writer) error {
		return modules.WriteInitramfs(ctx, w, c.Key.Public().Text(), linux.Config, filepath.Join(c.Lib, GoInitramfs), show.task("initramfs"))
	})
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	part := func(name, file string, write func(context.Context, io.Writer, kernelconfig.Config, func(done, total int64)) error) task {
		return func(ctx context.Context, show showFunc) error {
			err := writeTo(filepath.Join(dir, file), func(w io.Writer) error { return write(ctx, w, linux.Config, show.task(name)) })
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
	}
	return sideBySide(ctx, show, part("network drivers", manifest.NICs, modules.WriteNICs), part("drivers", manifest.Drivers, modules.WriteDrivers))
}

// writeTo creates a file and lets write fill it.
func writeTo(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// runWithGrace runs do and returns when it ends, or within grace after ctx does: a
// read from a dead network disk is no reason to stay.
func runWithGrace(ctx context.Context, grace time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return ctx.Err()
	}
}
