package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/jaypipes/ghw"
	"github.com/spf13/cobra"

	"viver.lan/internal/hardware"
)

// hardwareReport is what `viver doctor hardware` says.
type hardwareReport struct {
	Machine hardware.Machine  `json:"machine"`
	Kernel  string            `json:"kernel"`
	Devices []hardware.Device `json:"devices"`
	// Unknown says what could not be looked at.
	Unknown []string `json:"unknown,omitempty"`
}

func newDoctorHardware(env environment) *cobra.Command {
	var o output
	var root string
	cmd := &cobra.Command{
		Use:   "hardware",
		Short: "Show what this machine is made of, what drives it, what is missing and what is slow",
		Long: `Shows network cards, disk controllers, graphics and USB ports: the driver that runs each;
why one has none, and the module that would do; the firmware that one asked for without
success, with its package; and what is below its means, such as a link at 100 Mbit/s where the
card can have 1000, or a card on fewer lanes of PCI Express than it has.

It works on a node and on any other Linux, changes nothing, and needs root only to read the
kernel's log, where that is protected. The exit code is 1 when a network card, a disk controller
or something on USB does not run.`,
		Example: `  viver doctor hardware
  viver doctor hardware -o json | jq '.devices[] | select(.missing)'`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			log, err := hardware.KernelLog()
			r := surveyHardware(root, log)
			if err != nil {
				r.Unknown = append(r.Unknown, fmt.Sprintf("which firmware was not found: the kernel's log cannot be read (%v); root can", err))
			}
			if err := o.print(env.stdout, r, func(w io.Writer) error { return r.write(w) }); err != nil {
				return err
			}
			return r.verdict()
		},
	}
	o.register(cmd)
	cmd.Flags().StringVar(&root, "root", "/", "where /sys, /proc and the modules are")
	_ = cmd.Flags().MarkHidden("root") // for tests
	return cmd
}

// surveyHardware looks at the machine below root.
func surveyHardware(root, log string) hardwareReport {
	r := hardwareReport{Machine: hardware.Describe(root)}
	release, err := hardware.Release(hardware.Root(root))
	var drivers hardware.Drivers
	if err == nil {
		r.Kernel = release
		var tree *hardware.Tree
		if tree, err = hardware.OpenTree(root, release); err == nil {
			drivers = tree
		}
	}
	if err != nil {
		r.Unknown = append(r.Unknown, fmt.Sprintf("which module would run a device without one: %v", err))
	}
	r.Devices = hardware.Survey(root, drivers, log)
	nameDevices(root, r.Devices)
	hardware.Sort(r.Devices)
	return r
}

// nameDevices gives PCI devices their names where the machine has a pci.ids.
func nameDevices(root string, devices []hardware.Device) {
	pci, err := ghw.PCI(ghw.WithChroot(root), ghw.WithDisableWarnings(), ghw.WithDisableTools())
	if err != nil {
		return // the maker is known without
	}
	for i, d := range devices {
		if known := pci.GetDevice(d.Address); d.Bus == "pci" && known != nil && known.Product != nil && known.Vendor != nil {
			devices[i].Name = known.Vendor.Name + " " + known.Product.Name
		}
	}
}

func (r hardwareReport) write(w io.Writer) error {
	fmt.Fprintf(w, "%s\nkernel %s\n\n", r.Machine, cmp.Or(r.Kernel, "unknown"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tWHERE\tID\tNAME\tDRIVER\tSTATE")
	for _, d := range r.Devices {
		state := "ok"
		switch {
		case len(d.Missing) > 0:
			state = "MISSING"
		case len(d.Slow) > 0:
			state = "slow"
		}
		driver := cmp.Or(d.Driver, "none")
		if d.Link != "" {
			driver += " (" + d.Link + ")"
		}
		fmt.Fprintln(t, strings.Join([]string{d.Kind, d.Address, d.ID, d.Name, driver, state}, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range r.Devices {
		for _, text := range append(d.Missing, d.Slow...) {
			fmt.Fprintf(w, "\n%s: %s\n", d, text)
		}
	}
	for _, text := range r.Unknown {
		fmt.Fprintf(w, "\nnot known: %s\n", text)
	}
	return nil
}

// verdict is an error when a device does not run; a slow one is none, and neither is a card
// that no machine needs to boot.
func (r hardwareReport) verdict() error {
	for _, d := range r.Devices {
		if len(d.Missing) > 0 && d.ForBoot() {
			return fmt.Errorf("%w: %s", errUnhealthy, d)
		}
	}
	return nil
}
