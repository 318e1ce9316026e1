package bootbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"viver.lan/internal/bench/figures"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
)

// loginPrompt is how the console of a Linux ends that one can log in to. There
// is no event for it: who prints it is the distribution's own getty.
const loginPrompt = `(?m)login: ?$`

// measure boots the machines of a row, run after run.
func (b *bench) measure(ctx context.Context, s spec) (rows []Row, err error) {
	b.progress.begin(s.name)
	b.progress.report("waits until no other machine runs on this host")
	lab, err := harness.Open(ctx, b.dir(s), harness.Options{VMs: max(s.n+1, 2), Logf: b.logf})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			b.logf("%s", lab.Explain())
		}
		err = errors.Join(err, lab.Close())
	}()
	segment, err := lab.LAN("lan")
	if err != nil {
		return nil, err
	}
	if s.system == Room {
		return b.measureRoom(ctx, lab, segment, s)
	}
	var m meters
	var first *harness.VM
	switch s.system {
	case VIVER:
		first, err = b.startFirst(ctx, lab, segment, &m, b.options.medium("debian"))
	case Disk:
		defer os.Remove(b.bootedDisk(s))
		err = b.bootOnce(ctx, lab, segment, s)
	case NBD, Live:
		var server *classic
		server, err = startClassic(ctx, segment, &m, filepath.Join(lab.Dir(), "server"), b.options.Baselines, b.options.image("debian", "root.squashfs"), s.system)
		if server != nil {
			defer func() { err = errors.Join(err, server.close()) }()
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range s.runs {
		b.progress.begin(fmt.Sprintf("%s, run %d of %d", s.name, i+1, s.runs))
		row, err := b.boot(ctx, lab, segment, &m, first, s, i)
		if err != nil {
			return rows, fmt.Errorf("run %d: %w", i+1, err)
		}
		b.progress.line(row)
		rows = append(rows, row)
	}
	return rows, nil
}

// config is the machine that is timed.
func (b *bench) config(s spec, segment *lan.Switch, name string) harness.Config {
	c := harness.Config{Name: name, Memory: memory, CPUs: s.cpus, Firmware: s.firmware,
		NICs: []harness.NIC{{LAN: segment, NoROM: s.firmware.IsUEFI()}}}
	if s.system == Disk {
		c.Kernel, c.Initrd = filepath.Join(b.options.Baselines, "vmlinuz"), filepath.Join(b.options.Baselines, "initrd-disk.img")
		c.Append = kernelArguments(Disk)
		c.Disks = []string{b.bootedDisk(s)}
		c.Args = []string{"-snapshot"} // what is written is forgotten
	}
	return c
}

// bootedDisk is the local disk of a row.
func (b *bench) bootedDisk(s spec) string { return filepath.Join(b.dir(s), "disk.ext4") }

// bootOnce boots a new local disk once, because a Linux makes its SSH keys, its machine ID
// and some caches when it boots first, and keeps them.
func (b *bench) bootOnce(ctx context.Context, lab *harness.Lab, segment *lan.Switch, s spec) error {
	b.progress.report("a new disk boots once before it is measured")
	disk := b.bootedDisk(s)
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", filepath.Join(b.options.Baselines, "disk.ext4"), disk).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the local disk: %w: %s", err, out)
	}
	c := b.config(s, segment, "once")
	c.Args = nil
	vm, err := lab.Start(ctx, c)
	if err != nil {
		return err
	}
	defer vm.PowerCut()
	if _, err := vm.WaitConsole(ctx, loginPrompt); err != nil {
		return err
	}
	// The prompt comes before the last work is done; a failed unit is no matter here.
	if _, err := vm.Run(ctx, "sh", "-c", "systemctl is-system-running --wait || true"); err != nil {
		return err
	}
	return b.switchOff(ctx, vm)
}

// boot measures one boot of one machine.
func (b *bench) boot(ctx context.Context, lab *harness.Lab, segment *lan.Switch, m *meters, first *harness.VM, s spec, run int) (row Row, err error) {
	c := b.config(s, segment, fmt.Sprintf("%s%d", s.system, run+1))
	running := []*harness.VM{}
	if first != nil {
		running = append(running, first)
	}
	load := measureLoad(func() []*harness.VM { return running })
	used := firstNodeSeconds(first)
	vm, err := lab.Start(ctx, c)
	if err != nil {
		return row, err
	}
	defer vm.PowerCut()
	running = append(running, vm)
	one, err := m.watch(vm.MAC(0))
	if err != nil {
		return row, err
	}
	traffic := record(vm.Port(0), one)
	defer traffic.end()
	if _, err := vm.WaitConsole(ctx, loginPrompt); err != nil {
		return row, err
	}
	login := time.Now()
	others, used := load.others(), firstNodeSeconds(first)-used
	b.progress.report("login; the machine is asked")
	g, err := ask(ctx, vm, rootDevice(s.system))
	if err != nil {
		return row, err
	}
	row = newRow(s)
	row.OthersBusy, row.FirstNodeCPU = others, used
	row.fill(vm.Started(), login, g, traffic)
	if s.system == VIVER {
		// The agent comes among the runes, by HTTP; no real network has it.
		row.BootFileBytes -= figures.Value(b.agentBytes)
	}
	if run == 0 {
		b.details(ctx, vm, lab.Dir())
	}
	if first == nil {
		return row, nil
	}
	// A node that leaves in order leaves nothing to repair.
	if err := b.switchOff(ctx, vm); err != nil {
		return row, err
	}
	b.progress.report("the first node becomes idle")
	return row, b.waitIdle(ctx, first)
}

// fill takes the figures of one boot.
func (r *Row) fill(on, login time.Time, g guest, t *timeline) {
	seconds := func(d time.Duration) figures.Value { return figures.Value(d.Seconds()) }
	r.OnToKernel = seconds(g.kernel.Sub(on))
	r.KernelToInit = seconds(g.init)
	r.InitToLogin = seconds(login.Sub(g.kernel.Add(g.init)))
	r.OnToLogin = seconds(login.Sub(on))
	atKernel, atLogin := t.until(g.kernel), t.until(login)
	r.KernelBytes, r.NetBytes = figures.Value(atKernel.received), figures.Value(atLogin.received)
	r.BootFileBytes, r.RootBytes = figures.Value(atLogin.by[bootFiles]), figures.Value(atLogin.by[rootDisk])
	r.RootReads, r.RootReadBytes = figures.Value(g.reads), figures.Value(g.readBytes)
	if r.System == Disk {
		r.RootBytes = r.RootReadBytes
	}
	r.CPU, r.MemoryUsed = figures.Value(g.busy), figures.Value(g.memoryUsed)
	r.CPUOf = map[string]figures.Value{}
	for name, s := range g.byProcess() {
		if s >= 0.005*g.busy {
			r.CPUOf[name] = figures.Value(s)
		}
	}
	if s, ok := g.byProcess()["@vfield"]; ok && g.busy > 0 {
		r.VFieldShare = figures.Value(s / g.busy)
	}
}

// details keeps what the init says of the boot, once it is over, for people who
// look for what is slow.
func (b *bench) details(ctx context.Context, vm *harness.VM, dir string) {
	b.progress.report("the boot's details are read")
	ask := func(file string, argv ...string) {
		resp, err := vm.Do(ctx, execproto.Request{Argv: argv})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), resp.Stdout, 0o644)
		}
		if err != nil {
			b.logf("%s: %v", vm.Name(), err)
		}
	}
	ask("state", "systemctl", "is-system-running", "--wait")
	ask("blame", "systemd-analyze", "blame")
	ask("critical-chain", "systemd-analyze", "critical-chain")
	ask("processor", "systemctl", "show", "*", "--property=Id,CPUUsageNSec")
}

// switchOff lets a machine end in order, or pulls its plug when it does not.
func (b *bench) switchOff(ctx context.Context, vm *harness.VM) error {
	b.progress.report("the machine is switched off")
	if _, err := vm.Run(ctx, "systemctl", "poweroff", "--no-block"); err != nil && !errors.Is(err, harness.ErrGuestGone) {
		return err
	}
	if _, err := vm.WaitOff(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		b.logf("%v", err)
		vm.PowerCut()
	}
	return nil
}
