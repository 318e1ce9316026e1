package bootfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"viver.lan/internal/distribution"
	"viver.lan/kernelconfig"
)

// initPaths are the programs that a node starts, as a kernel would (init/main.c), and
// those of distributions that make no link to them: systemd, and the init of NixOS.
var initPaths = []string{"sbin/init", "etc/init", "bin/init", nixProfile + "/init", "lib/systemd/systemd", "usr/lib/systemd/systemd"}

// linkedInits are how many of initPaths a node finds by itself.
const linkedInits = 3

// Checked is a Linux that can boot without a disk.
type Checked struct {
	Kernel Kernel
	// Config is the kernel's, nil when the Linux has none.
	Config kernelconfig.Config
	// Init is the program that /sbin/init has to be a link to, "" when a node finds
	// its init by itself.
	Init string
	// Notes are sentences for people.
	Notes []string
}

// Check judges a Linux and chooses the kernel that will boot it. source is its name
// for people; want is a kernel release, the name of a kernel's file, in the Linux or
// else on this host, or "" for the newest. The error lists all that is missing.
func Check(linux fs.FS, source, want string) (*Checked, error) {
	c := checker{linux: linux, source: source, distribution: distribution.Of(linux)}
	kernel, found := c.chooseKernel(want)
	init := c.checkInit()
	var config kernelconfig.Config
	if found {
		c.checkModules(kernel)
		var err error
		if config, err = c.checkOptions(kernel); err != nil {
			return nil, err
		}
	}
	if len(c.problems) > 0 {
		return nil, fmt.Errorf("%s cannot boot without a disk:%s%s", source, bullet, strings.Join(c.problems, bullet)+c.advice(kernel.Release))
	}
	return &Checked{kernel, config, init, c.notes}, nil
}

// bullet is before each problem of the error.
const bullet = "\n  - "

// checker collects what there is to say of a Linux.
type checker struct {
	linux        fs.FS
	source       string
	distribution distribution.Distribution
	problems     []string
	notes        []string
	// What an installation would mend: there is no init, no kernel, or one that lacks
	// something.
	noInit, noKernel, smallKernel bool
}

// advice says what to install, in the words of the distribution.
func (c *checker) advice(release string) (lines string) {
	p := c.distribution.Packages(release)
	if c.noKernel {
		lines += "\nFor a kernel install " + p.Kernel + ", or name its file with --kernel."
	}
	if c.smallKernel {
		lines += "\nFor what the kernel lacks install " + p.Modules + "."
	}
	if c.noInit {
		lines += "\nFor an init install " + p.Init + "."
	}
	if lines != "" {
		lines = "\nThis is " + c.distribution.String() + "." + lines
	}
	return lines
}

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func (c *checker) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *checker) chooseKernel(want string) (Kernel, bool) {
	kernels, bad := Kernels(c.linux)
	if k, found := c.pick(kernels, want); found {
		for _, p := range bad {
			c.note("%s", p)
		}
		return k, true
	}
	if k, found, err := c.kernelFile(want); found {
		if err != nil {
			c.problem("--kernel %s is not a kernel that a PC can boot: %v", want, err)
		}
		return k, err == nil
	}
	c.problems = append(c.problems, bad...)
	switch {
	case len(kernels) == 0 && want != "":
		c.problem("no kernel %s: that is no file, and none was found in the usual places", want)
	case len(kernels) == 0:
		c.noKernel = true
		c.problem("no kernel: there is no vmlinuz in /boot or /lib/modules/*/, nor where systemd-boot, ostree, NixOS and others have it")
	default:
		var releases []string
		for _, k := range kernels {
			releases = append(releases, k.Release)
		}
		c.problem("no kernel %s: found %s", want, strings.Join(releases, ", "))
	}
	return Kernel{}, false
}

// pick returns the kernel of that release; without one, the newest that has its
// modules: what an update or another system left behind has none.
func (c *checker) pick(kernels []Kernel, want string) (Kernel, bool) {
	for _, k := range kernels {
		if k.Release == want {
			return k, true
		}
		if want == "" && list(c.linux, k.Modules) != nil {
			if k.Release != kernels[0].Release {
				c.note("kernel %s is newer and has no modules: taking %s", kernels[0].Release, k.Release)
			}
			return k, true
		}
	}
	if want == "" && len(kernels) > 0 {
		return kernels[0], true
	}
	return Kernel{}, false
}

// kernelFile takes want for the name of a file, of the Linux or else of this host.
func (c *checker) kernelFile(want string) (k Kernel, found bool, err error) {
	if want == "" {
		return k, false, nil
	}
	if name := strings.TrimPrefix(path.Clean("/"+want), "/"); isFile(c.linux, name) {
		release, err := kernelRelease(c.linux, name)
		return Kernel{Release: release, Path: name, Modules: ModulesDir(c.linux, release)}, true, err
	}
	k, err = hostKernel(c.linux, want)
	return k, !errors.Is(err, fs.ErrNotExist), err
}

// checkInit returns the init that needs a link to be found.
func (c *checker) checkInit() (unlinked string) {
	for i, p := range initPaths {
		if fi, err := fs.Stat(c.linux, p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			if i < linkedInits {
				return ""
			}
			return p
		}
	}
	c.noInit = true
	c.problem("no init: none of /%s is a program", strings.Join(initPaths, ", /"))
	return ""
}

func (c *checker) checkModules(k Kernel) {
	dir := k.Modules
	switch {
	case list(c.linux, dir) == nil:
		c.smallKernel = true
		c.problem("no modules: kernel %s has no directory /%s", k.Release, dir)
	case !isFile(c.linux, path.Join(dir, "modules.dep")):
		c.problem("no /%s/modules.dep: run `depmod -b %s %s`", dir, c.source, k.Release)
	case !isFile(c.linux, path.Join(dir, "modules.alias")):
		c.problem("no /%s/modules.alias: run `depmod -b %s %s`", dir, c.source, k.Release)
	}
}

// readConfig reads the kernel's configuration, nil when the Linux has none.
func readConfig(linux fs.FS, k Kernel) (kernelconfig.Config, error) {
	for _, p := range configPlaces(k) {
		data, err := optional(linux, p)
		if err != nil {
			return nil, err
		}
		if data == nil {
			continue
		}
		return kernelconfig.ParseConfig(bytes.NewReader(data))
	}
	return nil, nil
}

// configPlaces are where distributions put a kernel's configuration: in /boot, beside
// the kernel as ostree and older Alpines do, beside the modules, with the headers for
// building modules (Arch, NixOS), and of genkernel (Gentoo).
func configPlaces(k Kernel) []string {
	places := []string{"boot/config-" + k.Release, k.Modules + "/config", k.Modules + "/build/.config", "etc/kernels/kernel-config-" + k.Release}
	dir, name := path.Split(k.Path)
	if _, flavour, ok := strings.Cut(name, "-"); ok {
		places = append(places, dir+"config-"+flavour)
	}
	return places
}

// checkOptions compares the kernel with what package kernelconfig asks for. A
// kernel that comes with no configuration is judged by its modules alone.
func (c *checker) checkOptions(k Kernel) (kernelconfig.Config, error) {
	options, err := kernelconfig.Options()
	if err != nil {
		return nil, err
	}
	config, err := readConfig(c.linux, k)
	if err != nil {
		return nil, err
	}
	if config == nil {
		c.note("kernel %s comes without its configuration (/boot/config-%s): only its modules were checked", k.Release, k.Release)
	}
	index, err := readModuleIndex(c.linux, k)
	if err != nil {
		return config, nil // checkModules has said so
	}
	for _, o := range options {
		if v := judge(o, k, config, index); v.Problem != "" {
			c.smallKernel = true
			c.problem("kernel %s %s", k.Release, v.Problem)
		}
	}
	return config, nil
}
