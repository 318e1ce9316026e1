package show

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// ErrNotShown says that the demo ran but what it was to show is not so. What is
// missing follows; the report has told why.
var ErrNotShown = errors.New("the demo did not show what it should")

// Dir is where a program of this module keeps the traces of its last run.
func Dir(program string) (string, error) {
	root, err := harness.ModuleRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "qemu-tests", "out", program), nil
}

// Execute runs a command until it ends or SIGINT or SIGTERM comes, and prints its error.
func Execute(cmd *cobra.Command) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", cmd.Name(), err)
	}
	return err
}

// Demo boots a network of three machines from a medium, looks whether it
// works and reports. Bundles are added to a copy of the medium first. All
// traces stay in dir.
func Demo(ctx context.Context, out io.Writer, medium string, bundles []string, dir string) error {
	plan := Plan{Medium: medium, Dir: dir, Machines: []harness.Config{
		{Name: "first", Firmware: harness.BIOS, Memory: 1024},
		{Name: "node1", Firmware: harness.BIOS, Memory: 1024},
		{Name: "node2", Firmware: harness.UEFI, Memory: 1024},
	}}
	if len(bundles) > 0 {
		own, remove, err := withRunes(ctx, medium, bundles)
		if err != nil {
			return err
		}
		defer remove()
		plan.Medium = own
	}
	var missing []string
	err := session(ctx, out, plan, func(n *Network) error {
		bootErr := n.Boot(ctx)
		var checks []Check
		if ctx.Err() == nil {
			n.Board.Say("checking, each machine reads its whole root disk")
			checks = n.Checks(ctx)
		}
		n.finish(out, bootErr, checks)
		missing = Missing(n.Board.Machines(), checks)
		return context.Cause(ctx)
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %s", ErrNotShown, strings.Join(missing, "; "))
	}
	return err
}

// Interactive boots a network and lets it run until ctx ends, which is no
// error.
func Interactive(ctx context.Context, out io.Writer, plan Plan) error {
	err := session(ctx, out, plan, func(n *Network) error {
		bootErr := n.Boot(ctx)
		if ctx.Err() == nil {
			n.finish(out, bootErr, nil)
			fmt.Fprintln(out, "The machines run on. Ctrl-C switches them off.")
		}
		<-ctx.Done()
		return nil
	})
	if ctx.Err() != nil && err == nil {
		fmt.Fprintln(out, "All machines are off.")
	}
	return err
}

// session opens a network, draws it while use runs, which boots it, and closes it.
func session(ctx context.Context, out io.Writer, plan Plan, use func(*Network) error) (err error) {
	if _, err := os.Stat(plan.Medium); err != nil {
		return fmt.Errorf("the medium: %w; ./build.sh iso makes one", err)
	}
	board := NewBoard(out)
	fmt.Fprintf(out, "preparing %d machines; console logs, events and the network's capture go to %s\n", len(plan.Machines), plan.Dir)
	n, err := Open(ctx, plan, board)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if n.Lab.Accel() == "tcg" {
		board.Say("without KVM: a machine takes one to three minutes to its login, and more on a busy or slow host; nothing ends while something still happens")
	}
	drawing, stop := context.WithCancel(context.Background())
	drawn := make(chan struct{})
	go func() {
		defer close(drawn)
		board.Run(drawing)
	}()
	n.stopDrawing = func() { stop(); <-drawn }
	defer n.stopDrawing()
	return use(n)
}

// finish ends the live picture and prints the report below it.
func (n *Network) finish(out io.Writer, bootErr error, checks []Check) {
	n.stopDrawing()
	fmt.Fprintln(out)
	_ = Report(out, n.Board.Machines(), checks) // nobody left to tell
	if bootErr != nil {
		fmt.Fprintf(out, "\n%v\n\n%s", bootErr, n.Lab.Explain())
	}
}

// withRunes makes a copy of a medium with bundles added to its settings
// volume, as a person would add them to a burned stick.
func withRunes(ctx context.Context, medium string, bundles []string) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "viver-medium-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // only space
	path = filepath.Join(dir, filepath.Base(medium))
	if err := media.Copy(path, medium); err != nil {
		remove()
		return "", nil, fmt.Errorf("%w; ./build.sh iso makes a medium", err)
	}
	for _, b := range bundles {
		if _, err := os.Stat(filepath.Join(b, "rune.toml")); err != nil {
			remove()
			return "", nil, fmt.Errorf("the bundle %s: %w; ./build.sh demo builds it", b, err)
		}
		if err := media.AddRune(ctx, path, b); err != nil {
			remove()
			return "", nil, err
		}
	}
	return path, remove, nil
}
