package hardware

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"viver.lan/internal/ether"
)

// TestIDIsForever holds the identity of two machines: with another one after an
// update, a machine would be a stranger to its own saved data.
func TestIDIsForever(t *testing.T) {
	const uuid = "4c4c4544-0042-3510-8056-b4c04f4a3232"
	mac := ether.MAC{0x52, 0x54, 0, 0xaa, 0xbb, 1}
	for _, tc := range []struct{ uuid, want string }{
		{uuid, "15d766d3a021403d997ad91ea450c385"},
		{"", "dbf3a49a23304a17abb0182dac95f396"},
	} {
		if got := (Machine{UUID: tc.uuid}).ID(mac); got != tc.want {
			t.Errorf("%s %s is %s, it used to be %s", tc.uuid, mac, got, tc.want)
		}
	}
}

func TestIDTellsMachinesApart(t *testing.T) {
	const uuid = "4c4c4544-0042-3510-8056-b4c04f4a3232"
	mac, other := ether.MAC{0x52, 0x54, 0, 0xaa, 0xbb, 1}, ether.MAC{0x52, 0x54, 0, 0xaa, 0xbb, 2}
	id := func(uuid string, mac ether.MAC) string { return Machine{UUID: uuid}.ID(mac) }
	if id(uuid, mac) != id(strings.ToUpper(uuid), mac) {
		t.Error("the same in capitals is another machine")
	}
	if id(uuid, mac) == id("4c4c4544-0042-3510-8056-b4c04f4a3233", mac) {
		t.Error("two machines that pass one network adapter on are one")
	}
	if id(uuid, ether.MAC{}) != "" {
		t.Error("a machine that no NIC tells from its neighbour has an identity")
	}
	// What makers have left in whole series of boards, and any other.
	for _, shared := range []string{
		uuid, "", "unknown", "Not Settable", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"03000200-0400-0500-0006-000700080009", "03d40274-0435-05d3-2606-360700080009", "31303043-534d-ed33-3f1f-000000000000",
	} {
		if id(shared, mac) == id(shared, other) {
			t.Errorf("all machines with UUID %q are one", shared)
		}
	}
}

// TestIDIsOneForSystemd lets systemd read it.
func TestIDIsOneForSystemd(t *testing.T) {
	id := Machine{}.ID(ether.MAC{0x52, 0x54, 0, 0xaa, 0xbb, 1})
	if !regexp.MustCompile("^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$").MatchString(id) {
		t.Errorf("%q is no UUID of version 4", id)
	}
	tool, err := exec.LookPath("systemd-machine-id-setup")
	if err != nil {
		t.Skip("systemd-machine-id-setup is not installed")
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(id+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "--print", "--root="+root).Output()
	if err != nil || strings.TrimSpace(string(out)) != id {
		t.Errorf("systemd reads %q, %v; want %s", out, err, id)
	}
}
