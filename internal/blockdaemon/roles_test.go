package blockdaemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
)

func TestRolesAreKeptForTheNextDaemon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roles.json")
	if held, told, err := readRoles(file); held != nil || told || err != nil {
		t.Errorf("no file: %v, %t, %v", held, told, err)
	}
	for _, want := range [][]roles.Name{nil, {{Rune: "a", Role: "b"}, {Rune: "a", Role: "c"}}} {
		if err := control.WriteState(file, want); err != nil {
			t.Fatal(err)
		}
		if held, told, err := readRoles(file); !slices.Equal(held, want) || !told || err != nil {
			t.Errorf("%v came back as %v, %t, %v", want, held, told, err)
		}
	}
	for _, damaged := range []string{"", "{", `["a/b", "a/a"]`, `["a"]`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if held, told, err := readRoles(file); err == nil {
			t.Errorf("%q is read as %v, %t", damaged, held, told)
		}
	}
}

func TestSavedDataCountsWhenItIsUsed(t *testing.T) {
	found, dir := []string{roles.SavedData, roles.KVM}, filepath.Join(t.TempDir(), "viver-data")
	if got := features(found, dir); !slices.Equal(got, []string{roles.KVM}) {
		t.Errorf("a disk that is not mounted: %v", got)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := features(found, dir); !slices.Equal(got, found) {
		t.Errorf("a disk that is mounted: %v", got)
	}
}
