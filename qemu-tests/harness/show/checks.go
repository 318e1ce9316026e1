package show

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// imageOf reads the manifest on a medium.
func imageOf(ctx context.Context, medium string) (*manifest.Manifest, error) {
	data, err := media.ReadISO(ctx, medium, "/viver/image/"+manifest.File)
	if err != nil {
		return nil, err
	}
	return manifest.Read(bytes.NewReader(data))
}

// Checks tries on the running machines what the network is for. All machines
// are asked at once, and every check is reported.
func (n *Network) Checks(ctx context.Context) []Check {
	machines := n.Board.Machines()
	checks := []Check{
		{What: "every machine has a name of its own", Err: distinct(machines, "hostname", func(m Machine) string { return m.Node.Hostname })},
		{What: "every machine has an address of its own", Err: distinct(machines, "address", func(m Machine) string { return m.Node.Address })},
	}
	image, err := imageOf(ctx, n.plan.Medium)
	if err != nil {
		return append(checks, Check{What: "the medium says which image it carries", Err: err})
	}
	of := make([][]Check, len(n.vms))
	var g errgroup.Group
	for i, vm := range n.vms {
		g.Go(func() error {
			n.Board.update(vm.Name(), func(m *Machine) { m.Task = "reads its whole root disk" })
			of[i] = inspect(ctx, vm, machines[i], image)
			n.Board.update(vm.Name(), func(m *Machine) { m.Task = "" })
			return nil
		})
	}
	_ = g.Wait() // always nil
	for _, more := range of {
		checks = append(checks, more...)
	}
	return checks
}

// distinct says which machines lack a value or share one.
func distinct(machines []Machine, what string, of func(Machine) string) error {
	owner := map[string]string{}
	for _, m := range machines {
		v := of(m)
		if v == "" {
			return fmt.Errorf("%s never said its %s", m.Name, what)
		}
		if other, taken := owner[v]; taken {
			return fmt.Errorf("%s and %s both have %s", other, m.Name, v)
		}
		owner[v] = m.Name
	}
	return nil
}

// inspect asks the agent of one machine.
func inspect(ctx context.Context, vm *harness.VM, m Machine, image *manifest.Manifest) []Check {
	hello, err := vm.WaitReady(ctx)
	if err != nil {
		return []Check{{What: vm.Name() + " answers", Err: err}}
	}
	named := Check{What: fmt.Sprintf("%s calls itself %s, under %s", vm.Name(), hello.Hostname, hello.Init)}
	if hello.Hostname != m.Node.Hostname {
		named.Err = fmt.Errorf("its boot gave it the name %s", m.Node.Hostname)
	}
	addressed := Check{What: fmt.Sprintf("%s has the address %s", vm.Name(), m.Node.Address), Err: hasAddress(ctx, vm, m.Node.Address)}

	root := image.RootFile()
	whole := Check{What: fmt.Sprintf("%s reads its whole root disk, %.0f MB, with the image's digest %.12s…", vm.Name(), float64(root.Size)/1e6, root.SHA256)}
	sum, err := vm.Run(ctx, execproto.CmdSHA256, or(m.RootDisk, "/dev/nbd0"), strconv.FormatInt(root.Size, 10))
	if sum = strings.TrimSpace(sum); err == nil && sum != root.SHA256.String() {
		err = fmt.Errorf("the digest is %s", sum)
	}
	whole.Err = err
	return []Check{named, addressed, whole}
}

// hasAddress fails when no interface has the address.
func hasAddress(ctx context.Context, vm *harness.VM, address string) error {
	out, err := vm.Run(ctx, execproto.CmdInterfaces)
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(address, "/")
	var all []string
	for line := range strings.Lines(out) {
		var i execproto.Interface
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			return fmt.Errorf("%s: %w", execproto.CmdInterfaces, err)
		}
		for _, cidr := range i.Addresses {
			if a, _, _ := strings.Cut(cidr, "/"); a == host {
				return nil
			}
		}
		all = append(all, fmt.Sprintf("%s %v", i.Name, i.Addresses))
	}
	return fmt.Errorf("no interface has it; found %s", strings.Join(all, ", "))
}
