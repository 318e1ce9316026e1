package imagebuild

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"viver.lan/kernelconfig"
)

// Problems is the list of reasons why a tree cannot become a diskless image.
type Problems struct {
	Source string
	List   []string
}

// Error implements error, one line per problem.
func (p *Problems) Error() string {
	return fmt.Sprintf("%s cannot boot without a disk:\n  - %s", p.Source, strings.Join(p.List, "\n  - "))
}

func (p *Problems) add(format string, args ...any) {
	p.List = append(p.List, fmt.Sprintf(format, args...))
}

// initPaths are the programs a kernel looks for (init/main.c), and systemd
// where a distribution made no link to it.
var initPaths = []string{"sbin/init", "etc/init", "bin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd"}

// check judges a tree and returns the kernel that will boot it. want is a
// kernel release, the name of a kernel's file, or "" for the newest. The error is a *Problems.
func (t *Tree) check(want string) (Kernel, kernelconfig.Config, error) {
	problems := &Problems{Source: t.Source}
	kernel, found := t.chooseKernel(want, problems)
	t.checkInit(problems)
	var config kernelconfig.Config
	if found {
		t.checkModules(kernel, problems)
		var err error
		if config, err = t.checkOptions(kernel, problems); err != nil {
			return Kernel{}, nil, err
		}
	}
	if len(problems.List) > 0 {
		return Kernel{}, nil, problems
	}
	return kernel, config, nil
}

func (t *Tree) chooseKernel(want string, problems *Problems) (Kernel, bool) {
	kernels, bad := t.kernels()
	if k, found := t.pick(kernels, want); found {
		for _, p := range bad {
			t.note("%s", p)
		}
		return k, true
	}
	if k, found, err := t.kernelFile(want); found {
		if err != nil {
			problems.add("--kernel %s is not a kernel that a PC can boot: %v", want, err)
		}
		return k, err == nil
	}
	problems.List = append(problems.List, bad...)
	switch {
	case len(kernels) == 0 && want != "":
		problems.add("no kernel %s: that is no file, and none was found in the usual places", want)
	case len(kernels) == 0:
		problems.add("no kernel: there is no vmlinuz in /boot or /lib/modules/*/, nor where systemd-boot and others have it; install the distribution's kernel package (on Debian: linux-image-amd64), or name its file with --kernel")
	default:
		var releases []string
		for _, k := range kernels {
			releases = append(releases, k.Release)
		}
		problems.add("no kernel %s: found %s", want, strings.Join(releases, ", "))
	}
	return Kernel{}, false
}

// pick returns the kernel of that release; without one, the newest that has its
// modules: what an update or another system left behind has none.
func (t *Tree) pick(kernels []Kernel, want string) (Kernel, bool) {
	for _, k := range kernels {
		if k.Release == want {
			return k, true
		}
		if want == "" && t.list(k.modulesDir()) != nil {
			if k != kernels[0] {
				t.note("kernel %s is newer and has no modules: taking %s", kernels[0].Release, k.Release)
			}
			return k, true
		}
	}
	if want == "" && len(kernels) > 0 {
		return kernels[0], true
	}
	return Kernel{}, false
}

// kernelFile takes want for the name of a file, of the tree or else of this host.
func (t *Tree) kernelFile(want string) (k Kernel, found bool, err error) {
	if want == "" {
		return k, false, nil
	}
	if name := clean(want); t.isFile(name) {
		release, err := t.kernelRelease(name)
		return Kernel{Release: release, Path: name}, true, err
	}
	k, err = t.addKernel(want)
	return k, !errors.Is(err, fs.ErrNotExist), err
}

func (t *Tree) checkInit(problems *Problems) {
	for _, p := range initPaths {
		if e, err := t.lookup(p); err == nil && e.open != nil && e.header.Mode&0o111 != 0 {
			return
		}
	}
	problems.add("no init: none of /%s is a program; install an init system (on Debian: systemd-sysv or sysvinit-core)", strings.Join(initPaths, ", /"))
}

func (t *Tree) checkModules(k Kernel, problems *Problems) {
	dir := k.modulesDir()
	switch {
	case t.list(dir) == nil:
		problems.add("no modules: kernel %s has no directory /%s", k.Release, dir)
	case !t.isFile(path.Join(dir, "modules.dep")):
		problems.add("no /%s/modules.dep: run `depmod -b %s %s`", dir, t.Source, k.Release)
	case !t.isFile(path.Join(dir, "modules.alias")):
		problems.add("no /%s/modules.alias: run `depmod -b %s %s`", dir, t.Source, k.Release)
	}
}

// config reads the kernel's configuration, nil when the tree has none.
func (t *Tree) config(k Kernel) (kernelconfig.Config, error) {
	for _, p := range []string{"boot/config-" + k.Release, k.modulesDir() + "/config"} {
		if !t.isFile(p) {
			continue
		}
		data, err := t.readFile(p)
		if err != nil {
			return nil, err
		}
		return kernelconfig.ParseConfig(bytes.NewReader(data))
	}
	return nil, nil
}

// checkOptions compares the kernel with what package kernelconfig asks for. A
// kernel that comes with no configuration is judged by its modules alone.
func (t *Tree) checkOptions(k Kernel, problems *Problems) (kernelconfig.Config, error) {
	options, err := kernelconfig.Options()
	if err != nil {
		return nil, err
	}
	config, err := t.config(k)
	if err != nil {
		return nil, err
	}
	if config == nil {
		t.note("kernel %s comes without its configuration (/boot/config-%s): only its modules were checked", k.Release, k.Release)
	}
	index, err := t.moduleIndex(k)
	if err != nil {
		return config, nil // checkModules has said so
	}
	for _, o := range options {
		has, asModule := config.Has(o)
		switch {
		case config == nil && o.Module == "":
		case config == nil && !index.has(o.Module):
			problems.add("kernel %s has no module %s and does not have it built in: %s", k.Release, o.Module, o.Reason)
		case config == nil || has && !asModule:
		case !has && o.Need == kernelconfig.Builtin:
			problems.add("kernel %s lacks %s=y: %s", k.Release, o, o.Reason)
		case !has:
			problems.add("kernel %s lacks %s (=y or =m): %s", k.Release, o, o.Reason)
		case !index.has(o.Module):
			problems.add("kernel %s was built with %s=m, but %s.ko is not in /%s: %s; install the rest of the kernel's modules", k.Release, o, o.Module, k.modulesDir(), o.Reason)
		}
	}
	return config, nil
}

// readUpTo fills p as far as r goes.
func readUpTo(r io.Reader, p []byte) (int, error) {
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
