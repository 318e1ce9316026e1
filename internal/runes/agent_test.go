package runes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAgentRune builds the tests' own rune and lays it over the roots it must
// start on.
func TestAgentRune(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "../../qemu-tests/guests/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bundles, errs := Load(os.DirFS(dir))
	if len(errs) != 0 || names(bundles) != "qemu-agent" {
		t.Fatalf("%s, %v", names(bundles), errs)
	}
	const program = "/usr/local/libexec/viver/qemu-agent"
	for name, test := range map[string]struct {
		image map[string]string
		want  []string
	}{
		"systemd": {map[string]string{"usr/lib/systemd/systemd": ""}, []string{
			"/run/systemd/system/multi-user.target.wants/viver-qemu-agent.service", "/run/systemd/system/viver-qemu-agent.service", program}},
		"sysvinit": {map[string]string{"etc/inittab": "id:2:initdefault:\n"}, []string{"/etc/inittab", program}},
		"tiny":     {map[string]string{"etc/viver/services.d/": ""}, []string{"/etc/viver/services.d/qemu-agent", program}},
	} {
		where := image(t, test.image)
		facts := testFacts()
		facts.Init = name
		r := apply(t, where, bundles, facts)["qemu-agent"]
		if r.Outcome != Applied || strings.Join(r.Files, " ") != strings.Join(test.want, " ") {
			t.Errorf("%s: %+v, want %v", name, r, test.want)
		}
		if info, err := os.Stat(filepath.Join(where.Root, program)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		if name == "sysvinit" && read(t, where, "/etc/inittab") != "qa:2345:respawn:"+program+"\nid:2:initdefault:\n" {
			t.Errorf("inittab: %q", read(t, where, "/etc/inittab"))
		}
		if name == "systemd" {
			if link, err := os.Readlink(filepath.Join(where.Run, "systemd/system/multi-user.target.wants/viver-qemu-agent.service")); err != nil || link != "../viver-qemu-agent.service" {
				t.Errorf("wants: %q, %v", link, err)
			}
		}
	}
}
