package scenarios

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// usersRune is a rune with one user and one group.
func usersRune(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "users")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const manifest = `
name = "users"
[[group]]
name = "lab"
gid  = 3000
[[user]]
name   = "anna"
uid    = 3001
groups = ["lab"]
keys   = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDd3cXQnZPZbLqZc9lJEEbEfGjOvZ9Cx6HeMYl3sMTgf anna@home"]
`
	if err := os.WriteFile(filepath.Join(dir, "rune.toml"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// membersHaveNames asks each machine for the address of each other by its name, and for
// the name by the address.
func membersHaveNames(t *testing.T, c cluster) {
	for _, of := range c.all() {
		name := strings.TrimSpace(run(t, of, "hostname"))
		address := whereIs(t, of).Lease.Address.Addr().String()
		for _, at := range c.all() {
			eventually(t, at, "the name and the address of "+of.Name(), func() bool {
				forward, _ := at.Run(t.Context(), "getent", "ahostsv4", name)
				reverse, _ := at.Run(t.Context(), "getent", "hosts", address)
				return strings.HasPrefix(forward, address+" ") && strings.Contains(reverse, name)
			})
		}
	}
}

// usersAreTheSame logs nobody in: it asks whom each machine knows, and who the files
// belong to.
func usersAreTheSame(t *testing.T, c cluster) {
	for _, vm := range c.all() {
		if got := strings.TrimSpace(run(t, vm, "id", "anna")); got != "uid=3001(anna) gid=3001(anna) groups=3001(anna),3000(lab)" {
			t.Errorf("%s: %s", vm.Name(), got)
		}
		// Whether the home is this machine's or a file server's.
		eventually(t, vm, "anna's key in her home", func() bool {
			text, err := vm.Run(t.Context(), "setpriv", "--reuid=3001", "--regid=3001", "--clear-groups", "sh", "-c", "stat -c %u:%a ~anna ~anna/.ssh/authorized_keys; cat ~anna/.ssh/authorized_keys")
			return err == nil && strings.HasPrefix(text, "3001:700\n3001:600\nssh-ed25519 ") && strings.HasSuffix(text, "anna@home (viver)\n")
		})
	}
}

// clocksAgree finds the time of the first machine on one that was switched on in 1970.
func clocksAgree(t *testing.T, c cluster) {
	server := whereIs(t, c.first).Lease.Address.Addr().String()
	for _, vm := range []*harness.VM{c.store, c.work} {
		eventually(t, vm, "chronyd to follow the first machine", func() bool {
			text, err := vm.Run(t.Context(), "chronyc", "-n", "-c", "sources")
			return err == nil && strings.Contains(text, "^,*,"+server+",")
		})
	}
	const enough = 60 // seconds; the machines are slow, and more than 50 years were between
	clock := func(vm *harness.VM) int64 {
		seconds, err := strconv.ParseInt(strings.TrimSpace(run(t, vm, "date", "+%s")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	if first, work := clock(c.first), clock(c.work); work < first-enough || work > first+enough {
		t.Errorf("it is %d on the first machine and %d on the one that began in 1970", first, work)
	}
}
