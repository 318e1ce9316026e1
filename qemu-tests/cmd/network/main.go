// Command network boots anybody's medium and a network beside it in QEMU and
// shows what each machine does, until Ctrl-C. It is what ./build.sh qemu runs.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/show"
)

func main() {
	if show.Execute(command()) != nil {
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var (
		count            int
		firmware, memory string
		usb, display     bool
	)
	cmd := &cobra.Command{
		Use:   "qemu MEDIUM.iso",
		Short: "Boot a medium and a network beside it in QEMU, until Ctrl-C",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mib, err := harness.ParseMemory(memory)
			if err != nil {
				return err
			}
			if count < 1 || count > 64 {
				return fmt.Errorf("-n %d: want 1 to 64 machines", count)
			}
			c := harness.Config{Firmware: harness.Firmware(firmware), Memory: mib}
			if display {
				if c.Display, err = harness.Display(cmd.Context()); err != nil {
					return err
				}
			}
			dir, err := show.Dir("network")
			if err != nil {
				return err
			}
			plan := show.Plan{Medium: args[0], USB: usb, Dir: dir}
			for _, c.Name = range show.Names(count) {
				plan.Machines = append(plan.Machines, c)
			}
			return show.Interactive(cmd.Context(), cmd.OutOrStdout(), plan)
		},
	}
	flags := cmd.Flags()
	flags.IntVarP(&count, "number", "n", 3, "how many machines, the one with the medium included")
	flags.StringVar(&firmware, "firmware", "bios", "bios, uefi or uefi-secure (with Secure Boot on)")
	flags.StringVar(&memory, "mem", "1G", "memory of each machine")
	flags.BoolVar(&usb, "usb", false, "the medium is a USB stick instead of a CD")
	flags.BoolVar(&display, "display", false, "open a window for each machine")
	return cmd
}
