//go:build !node

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/decompress"
	"viver.lan/internal/hardware"
	"viver.lan/kernelconfig"
)

// errKernel is the error when a kernel cannot boot an image.
var errKernel = errors.New("this kernel cannot boot an image")

func newKernel(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Judge kernels",
	}
	cmd.AddCommand(newKernelCheck(env))
	return cmd
}

// kernelReport is what `viver kernel check` says.
type kernelReport struct {
	Kernel   string              `json:"kernel"`
	Verdicts []bootfiles.Verdict `json:"verdicts"`
	Devices  []kernelDevice      `json:"devices,omitempty"` // of a machine that was asked about
}

// kernelDevice is what a device of a machine gets from a kernel.
type kernelDevice struct {
	Modalias string   `json:"modalias"`
	Modules  []string `json:"modules"`
	Parts    []string `json:"parts"` // of an image, for each module; "" for none
}

func newKernelCheck(env environment) *cobra.Command {
	var o output
	var release, machine string
	cmd := &cobra.Command{
		Use:   "check [CONFIG | LINUX | MODULES]",
		Short: "Say whether a kernel can boot a diskless image, with a reason for each thing it must have",
		Long: `Compares a kernel with what VIVER asks of one. The kernel is named by its configuration (a
.config, also compressed), by an installed Linux, whose newest kernel is taken, or by a
directory of modules. Without one, it is that of this machine.

With --machine it also says which module each device of a machine gets, and in which part of
an image that is; the file is what collect.sh prints on it (docs/hardware.md). The exit code is
1 when something is missing.`,
		Example: `  viver kernel check
  viver kernel check /boot/config-6.1.0-57-amd64
  viver kernel check /srv/lab-root --release 6.1.0-57-amd64
  viver kernel check /lib/modules/6.1.0-57-amd64 --machine room-12.txt`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			r, err := checkKernel(strings.Join(given, ""), release, machine)
			if err != nil {
				return err
			}
			if err := o.print(env.stdout, r, r.write); err != nil {
				return err
			}
			return r.verdict()
		},
	}
	o.register(cmd)
	cmd.Flags().StringVar(&release, "release", "", "of an installed Linux the kernel with this `release`, as uname -r prints it")
	cmd.Flags().StringVar(&machine, "machine", "", "`file` with the devices of a machine")
	return cmd
}

// checkKernel judges what somebody names; "" is this machine's kernel.
func checkKernel(name, release, machine string) (*kernelReport, error) {
	if name == "" {
		running, err := hardware.Release(hardware.Root("/"))
		if err != nil {
			return nil, err
		}
		name, release = "/", cmp.Or(release, running)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if machine != "" {
			return nil, usageError{errors.New("--machine wants a kernel's modules: name a Linux or a directory of modules, not a configuration")}
		}
		return checkConfig(name)
	}
	root, k, err := findKernel(name, release)
	if err != nil {
		return nil, err
	}
	r := &kernelReport{Kernel: k.Release}
	if r.Verdicts, err = bootfiles.JudgeKernel(os.DirFS(root), k); err != nil || machine == "" {
		return r, err
	}
	r.Devices, err = devicesOf(root, k, machine)
	return r, err
}

func checkConfig(path string) (*kernelReport, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte("\x1f\x8b")) { // /proc/config.gz
		if data, err = decompress.Decompress(data, ".gz"); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	config, err := kernelconfig.ParseConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if len(config) == 0 {
		return nil, fmt.Errorf("%s is no kernel configuration: no line begins with CONFIG_", path)
	}
	verdicts, err := bootfiles.JudgeConfig(config)
	return &kernelReport{Kernel: path, Verdicts: verdicts}, err
}

// findKernel returns the kernel of an installed Linux, or that of a directory of modules.
func findKernel(dir, release string) (root string, k bootfiles.Kernel, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", k, err
	}
	if _, err := os.Stat(filepath.Join(dir, "modules.dep")); err == nil {
		root, modules, _ := strings.Cut(dir, "/lib/modules/")
		root = strings.TrimSuffix(root, "/usr") + "/"
		if modules == "" {
			return "", k, fmt.Errorf("%s: want modules in …/lib/modules/RELEASE, as depmod(8) does", dir)
		}
		return root, bootfiles.Kernel{Release: modules, Modules: strings.TrimPrefix(dir, root)}, nil
	}
	if release != "" {
		modules := bootfiles.ModulesDir(os.DirFS(dir), release)
		if _, err := os.Stat(filepath.Join(dir, modules)); err == nil {
			return dir, bootfiles.Kernel{Release: release, Modules: modules}, nil
		}
		return "", k, fmt.Errorf("%s has no modules of kernel %s: there is no lib/modules/%s", dir, release, release)
	}
	kernels, bad := bootfiles.Kernels(os.DirFS(dir))
	if len(kernels) == 0 {
		return "", k, fmt.Errorf("%s has no kernel in the usual places%s: name its modules (…/lib/modules/RELEASE) or its configuration", dir, strings.Join(append([]string{""}, bad...), "; "))
	}
	return dir, kernels[0], nil
}

// devicesOf says what each device of a machine gets. Devices that nothing claims are told
// only if they are network cards or disk controllers: of most others the kernel needs none.
func devicesOf(root string, k bootfiles.Kernel, machine string) (devices []kernelDevice, err error) {
	text, err := os.ReadFile(machine)
	if err != nil {
		return nil, err
	}
	tree, err := hardware.OpenTree(root, k.Release)
	if err != nil {
		return nil, err
	}
	parts, err := bootfiles.ChooseModules(os.DirFS(root), k)
	if err != nil {
		return nil, err
	}
	for _, modalias := range hardware.ParseMachine(string(text)) {
		d := kernelDevice{Modalias: modalias, Modules: tree.Match(modalias)}
		for _, name := range d.Modules {
			d.Parts = append(d.Parts, parts.PartOf(name))
		}
		if len(d.Modules) > 0 || strings.Contains(modalias, "bc02sc00") || strings.Contains(modalias, "bc01") {
			devices = append(devices, d)
		}
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("%s names no device that this kernel has a module for: want a modalias on each line, as collect.sh prints them", machine)
	}
	return devices, nil
}

func (r *kernelReport) write(w io.Writer) error {
	fmt.Fprintf(w, "kernel %s\n\n", r.Kernel)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range r.Verdicts {
		state := "ok"
		switch {
		case v.Problem != "":
			state = "MISSING"
		case v.Has == bootfiles.Unknown:
			state = "?"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", state, v.Option, v.Has, v.Reason)
	}
	if len(r.Devices) > 0 {
		fmt.Fprintf(t, "\t\t\t\n")
	}
	for _, d := range r.Devices {
		for i, name := range d.Modules {
			fmt.Fprintf(t, "device\t%s\t%s\t%s\n", name, cmp.Or(d.Parts[i], "not before the root"), d.Modalias)
		}
		if len(d.Modules) == 0 {
			fmt.Fprintf(t, "device\tNO MODULE\t\t%s\n", d.Modalias)
		}
	}
	return t.Flush()
}

// verdict is an error when something is missing.
func (r *kernelReport) verdict() error {
	missing := 0
	for _, v := range r.Verdicts {
		if v.Problem != "" {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%w: %d of %d things are missing", errKernel, missing, len(r.Verdicts))
	}
	return nil
}
