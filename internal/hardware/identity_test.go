package hardware

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestIDIsForever holds the identity of two machines: with another one after an
// update, a machine would be a stranger to its own saved data.
func TestIDIsForever(t *testing.T) {
	const uuid, mac = "4c4c4544-0042-3510-8056-b4c04f4a3232", "52:54:00:aa:bb:01"
	for _, tc := range []struct{ uuid, mac, want string }{
		{uuid, mac, "2d6d232a669243d0a95cdbd25413dfe1"},
		{"", mac, "09e4f7d345124e178aa3d38d91c30c56"},
	} {
		if got := (Machine{UUID: tc.uuid}).ID(tc.mac); got != tc.want {
			t.Errorf("%s %s is %s, it used to be %s", tc.uuid, tc.mac, got, tc.want)
		}
	}
}

func TestIDTellsMachinesApart(t *testing.T) {
	const uuid, mac, other = "4c4c4544-0042-3510-8056-b4c04f4a3232", "52:54:00:aa:bb:01", "52:54:00:aa:bb:02"
	id := func(uuid, mac string) string { return Machine{UUID: uuid}.ID(mac) }
	if id(uuid, mac) != id(strings.ToUpper(uuid), other) {
		t.Error("a machine with another card, or the same UUID in capitals, is another machine")
	}
	if id(uuid, mac) == id("4c4c4544-0042-3510-8056-b4c04f4a3233", mac) {
		t.Error("two UUIDs are one machine")
	}
	if id("", "") != "" {
		t.Error("a machine of which nothing is known has an identity")
	}
	for _, shared := range []string{
		"", "unknown", "Not Settable", "4c4c4544-0042-3510-8056", uuid + "00",
		"00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "fefefefe-fefe-fefe-fefe-fefefefefefe",
		"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc",
	} {
		if id(shared, mac) == id(shared, other) {
			t.Errorf("all machines with UUID %q are one", shared)
		}
		if id(shared, mac) != id("", strings.ToUpper(mac)) {
			t.Errorf("UUID %q counts", shared)
		}
	}
	if id("00000000-0000-0000-0000-ac1f6b010203", mac) != id("00000000-0000-0000-0000-ac1f6b010203", other) {
		t.Error("a UUID that ends in a MAC address tells nothing apart")
	}
}

// TestIDIsOneForSystemd lets systemd read it.
func TestIDIsOneForSystemd(t *testing.T) {
	id := Machine{}.ID("52:54:00:aa:bb:01")
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
