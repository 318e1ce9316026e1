package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/internal/testtable"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
)

// out returns a path below images/out, where build.sh leaves what it built.
func out(t testing.TB, elem ...string) string {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(append([]string{root, "images", "out"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run ./build.sh test qemu, which builds what the scenarios boot", err)
	}
	return path
}

// describe reads the manifest of an image.
func describe(t testing.TB, image string) *manifest.Manifest {
	t.Helper()
	return readManifest(t, out(t, image, manifest.File))
}

func readManifest(t testing.TB, path string) *manifest.Manifest {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := manifest.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withDrivers returns a file with all that the boot loader of a medium loads beside
// the kernel.
func withDrivers(t testing.TB, image string) string {
	t.Helper()
	var whole []byte
	for _, name := range []string{manifest.Initramfs, manifest.NICs, manifest.Drivers} {
		part, err := os.ReadFile(out(t, image, name))
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, part...)
	}
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// agentRune is the bundle that starts the agent in whatever boots.
func agentRune(t testing.TB) string { return out(t, "test", "qemu-agent") }

// medium builds a medium of an image with the agent and other bundles on its FAT
// volume, as a user would add one, and with the given settings.
func medium(t testing.TB, image, settings string, runes ...string) string {
	t.Helper()
	return mediumOf(t, out(t, image), settings, runes...)
}

// mediumOf does so with an image anywhere.
func mediumOf(t testing.TB, image, settings string, runes ...string) string {
	t.Helper()
	return mediumOfAll(t, []string{image}, settings, runes...)
}

// mediumOfAll does so with several images.
func mediumOfAll(t testing.TB, images []string, settings string, runes ...string) string {
	t.Helper()
	iso := filepath.Join(t.TempDir(), filepath.Base(images[0])+".iso")
	toml := filepath.Join(t.TempDir(), "viver.toml")
	if err := os.WriteFile(toml, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"medium", "build", "-o", iso, "--settings", toml, "--rune", agentRune(t)}, images...)
	for _, r := range runes {
		args = append(args, "--rune", r)
	}
	viver(t, args...)
	return iso
}

// viver runs the operator's command and returns what it printed.
func viver(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), out(t, "bin", "viver"), args...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("viver %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return string(text)
}

// segment makes the scenario's one network.
func segment(t testing.TB, lab *harness.Lab) *lan.Switch {
	t.Helper()
	s, err := lab.LAN("lan")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start switches a machine on.
func start(t testing.TB, lab *harness.Lab, c harness.Config) *harness.VM {
	t.Helper()
	vm, err := lab.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// serving waits until others can boot from the machine.
func serving(t testing.TB, vm *harness.VM) {
	t.Helper()
	wait(t, vm, "DHCP service", func(s event.Service) bool { return s.Name == "dhcp" && s.State == event.Started })
}

// ready waits until the booted Linux runs its services, and returns its name.
func ready(t testing.TB, vm *harness.VM) string {
	t.Helper()
	hello, err := vm.WaitReady(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return hello.Hostname
}

// readyFrom waits like ready, and writes the boot into the table of clients that
// build.sh shows: how the machine got its kernel, on what network, and how long
// that took from its power switch on. Machines that boot at the same time share
// the processor, so a row tells the order of things.
func readyFrom(t testing.TB, vm *harness.VM, client, network string) string {
	t.Helper()
	hello, err := vm.WaitReady(t.Context())
	if err != nil {
		boots().Add(t, client, network, "no", "-")
		t.Fatal(err)
	}
	row(t, vm, client, network)
	return hello.Hostname
}

// row writes a boot that went well.
func row(t testing.TB, vm *harness.VM, client, network string) {
	t.Helper()
	boots().Add(t, client, network, "yes", fmt.Sprintf("%.1f", vm.ToKernel().Seconds()))
}

func boots() testtable.Table {
	return testtable.Table{Name: "boots", Columns: []string{"client", "network", "boots", "seconds from power-on to kernel"}}
}

// The networks of that table.
const (
	emptyNetwork  = "empty"
	besideNetwork = "beside dnsmasq"
)

// run executes a command in a guest.
func run(t testing.TB, vm *harness.VM, argv ...string) string {
	t.Helper()
	text, err := vm.Run(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// wait waits for the first event of type E that satisfies ok.
func wait[E event.Event](t testing.TB, vm *harness.VM, what string, ok func(E) bool) E {
	t.Helper()
	var found E
	_, err := vm.WaitFor(t.Context(), what, func(rec event.Record) bool {
		e, is := harness.As[E](rec)
		if is && ok(e) {
			found = e
			return true
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// status is what the block daemon of a machine says of itself.
func status(t testing.TB, vm *harness.VM) (s control.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(run(t, vm, "/usr/local/bin/viver", "status", "-o", "json")), &s); err != nil {
		t.Fatalf("%s: viver status: %v", vm.Name(), err)
	}
	return s
}

// eventually waits until something is so on a machine that shows signs of life.
func eventually(t testing.TB, vm *harness.VM, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := vm.While(t.Context())
	defer cancel()
	for !holds() {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: waited for %s: %v", vm.Name(), what, context.Cause(ctx))
		}
	}
}

// digest reads a block device of a guest from cold, and returns its SHA-256.
func digest(t testing.TB, vm *harness.VM, device string, size int64) string {
	t.Helper()
	run(t, vm, "@drop-caches")
	got, err := hash(t, vm, device, size)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// hash reads a block device of a guest, which may wait for pieces and has no
// help from the processor to hash them. Tests call it from other goroutines.
func hash(t testing.TB, vm *harness.VM, device string, size int64) (string, error) {
	got, err := vm.Run(t.Context(), "@sha256", device, strconv.FormatInt(size, 10))
	return strings.TrimSpace(got), err
}

// write makes a file on a machine, with octal permissions if they are given.
func write(t testing.TB, vm *harness.VM, path, text string, mode ...string) {
	t.Helper()
	request := execproto.Request{Argv: append([]string{execproto.CmdWrite, path}, mode...), Stdin: execproto.Bytes(text)}
	response, err := vm.Do(t.Context(), request)
	if err != nil || response.Exit != 0 {
		t.Fatalf("%s: write %s: %v, %s", vm.Name(), path, err, response.Stderr)
	}
}
