package scenarios

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/sign"
	"viver.lan/internal/testtable"
	"viver.lan/qemu-tests/harness"
)

// Where the operator's key and tool are on a machine.
const (
	ownersKey = "/run/owner.key"
	nodeViver = "/usr/local/bin/viver"
)

// giveKey puts the owner's key on a machine.
func giveKey(t *testing.T, vm *harness.VM) {
	t.Helper()
	write(t, vm, ownersKey, ownerKey(t), "600")
}

// changes has the operator change the network through one of its machines, and notes
// the seconds until the last of them had it. It returns the version.
func changes(t *testing.T, via *harness.VM, machines int, args ...string) uint64 {
	t.Helper()
	said := run(t, via, slices.Concat([]string{nodeViver}, args, []string{"--socket", control.Socket, "--key", ownersKey})...)
	took := regexp.MustCompile(fmt.Sprintf(`%d of %[1]d nodes have it after (\S+) s`, machines)).FindStringSubmatch(said)
	if took == nil {
		t.Fatalf("viver %s: %d machines are on, and it said\n%s", strings.Join(args, " "), machines, said)
	}
	table := testtable.Table{Name: "live", Columns: []string{"change", "machines", "seconds until the last has it"}}
	table.Add(t, strings.Join(args[:2], " "), machines, took[1])
	return status(t, via).Live.Version
}

// sees waits until a machine has a version of the live layer, and made of it what these
// files hold.
func sees(t *testing.T, vm *harness.VM, version uint64, files map[string]string) {
	t.Helper()
	eventually(t, vm, fmt.Sprintf("version %d, and %v", version, files), func() bool {
		for file, want := range files {
			if got, err := vm.Run(t.Context(), "@read", file); err != nil || !strings.Contains(got, want) {
				return false
			}
		}
		live := status(t, vm).Live
		return live != nil && live.Here && live.Version == version
	})
}

// refused has a machine refuse a change, and say why.
func refused(t *testing.T, via *harness.VM, why string, args ...string) {
	t.Helper()
	_, err := via.Run(t.Context(), slices.Concat([]string{nodeViver}, args, []string{"--socket", control.Socket})...)
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("viver %s: %v; want it refused: %s", strings.Join(args, " "), err, why)
	}
}

// siteRune is what the operator adds to a running network: a user, a file that shows a
// setting, and a hook that runs on machines only which boot with it.
func siteRune() map[string]string {
	return map[string]string{
		"rune.toml": `name = "site"
[[user]]
name = "anna"
uid  = 3001
[[file]]
path = "/run/site/colour"
live = true
[settings]
colour = "of the site"
`,
		"files/run/site/colour.tmpl": "it is {{ setting `colour` `grey` }}",
		"hooks/root":                 "#!/bin/sh\necho booted >/run/site/booted\n",
	}
}

const whoBooted = "/run/site/booted" // what its hook leaves

// What each machine has of the operator's changes.
func site(colour string) map[string]string {
	return map[string]string{"/run/site/colour": "it is " + colour, "/etc/passwd": "anna:x:3001:", "/etc/motd": "be kind"}
}

// liveChanges has the operator add a rune with a user, a file and a setting, and take
// the last change back. All machines have it, with no reboot; what the owner did not
// sign none has. It returns the version.
func liveChanges(t *testing.T, via *harness.VM, all ...*harness.VM) uint64 {
	giveKey(t, via)
	const source = "/run/source"
	write(t, via, source, "be kind\n")
	add := []string{"rune", "add", "/run/site"}
	put := []string{"file", "put", source, "/etc/motd"}

	// The machine refuses what it has to judge itself: nothing was added before.
	const stranger = "/run/stranger.key"
	key := filepath.Join(t.TempDir(), "stranger.key")
	if _, _, err := sign.OpenKey(key); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, via, stranger, string(text), "600")
	refused(t, via, "expected key", append(put, "--key", stranger)...)

	dir := add[2]
	files := siteRune()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		run(t, via, "mkdir", "-p", path.Dir(path.Join(dir, name)))
		write(t, via, path.Join(dir, name), files[name])
	}
	changes(t, via, len(all), add...)
	before := changes(t, via, len(all), put...)
	version := changes(t, via, len(all), "rune", "set", "site", "colour=blue")
	for _, vm := range all {
		sees(t, vm, version, site("blue"))
	}
	refused(t, via, "did not sign", append(put, "--key", stranger)...)
	version = changes(t, via, len(all), "rune", "rollback")
	if version <= before {
		t.Errorf("the rollback has version %d, what it goes back to %d", version, before)
	}
	for _, vm := range all {
		sees(t, vm, version, site("grey"))
		if _, err := vm.Run(t.Context(), "@read", whoBooted); err == nil {
			t.Errorf("%s has run a hook that is for machines that boot", vm.Name())
		}
	}
	return version
}
