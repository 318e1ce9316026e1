package handover

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The dynamic loader itself says what a program of this machine needs (ldd(1)).
func TestPartsAreWhatTheLoaderReads(t *testing.T) {
	const program = "/usr/bin/systemctl"
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Skipf("ldd %s: %v", program, err)
	}
	want := []string{program}
	for word := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		file, err := filepath.EvalSymlinks(word)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, file)
	}
	got := slices.Collect(Parts("/", program))
	if len(want) < 3 || got[0] != program || !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("%s is made of\n%q\nthe loader says\n%q", program, got, want)
	}
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func TestPartsOfOtherInits(t *testing.T) {
	m := initramfs(t)
	program(t, m.Path("/newroot/sbin/broken"), "\x7fELF")
	program(t, m.Path("/newroot/sbin/itself"), "#!/sbin/itself\n")
	for init, want := range map[string][]string{
		"/sbin/init":    {"/newroot/sbin/init", "/newroot/bin/sh"},
		"/sbin/missing": nil,
		"/sbin/broken":  {"/newroot/sbin/broken"},
		"/sbin/itself":  {"/newroot/sbin/itself"},
	} {
		for i := range want {
			want[i] = m.Path(want[i])
		}
		if got := slices.Collect(Parts(m.Path("/newroot"), init)); !slices.Equal(got, want) {
			t.Errorf("Parts(%s) = %q, want %q", init, got, want)
		}
	}
}
