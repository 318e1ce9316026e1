package blockdaemon

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
)

func TestRolesAreKeptForTheNextDaemon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roles.json")
	if said, err := readRoles(file); said != nil || err != nil {
		t.Errorf("no file: %+v, %v", said, err)
	}
	for _, want := range []saidRoles{{Takes: true}, {true, []roles.Name{{Rune: "a", Role: "b"}, {Rune: "a", Role: "c"}}, []string{roles.SavedData}}} {
		if err := control.WriteState(file, want); err != nil {
			t.Fatal(err)
		}
		if said, err := readRoles(file); err != nil || !reflect.DeepEqual(*said, want) {
			t.Errorf("%+v came back as %+v, %v", want, said, err)
		}
	}
	for _, damaged := range []string{"", "{", `{"held": ["a/b", "a/a"]}`, `{"held": ["a"]}`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := readRoles(file); err == nil {
			t.Errorf("%q is read as %+v", damaged, said)
		}
	}
}

func TestSavedDataCountsWhenItIsUsed(t *testing.T) {
	found := []string{roles.SavedData, roles.KVM, roles.Homes} // homes are on that disk
	if got := features(found, false); !slices.Equal(got, []string{roles.KVM}) {
		t.Errorf("a disk that is not mounted: %v", got)
	}
	if got := features(found, true); !slices.Equal(got, found) {
		t.Errorf("a disk that is mounted: %v", got)
	}
}
