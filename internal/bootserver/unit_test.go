package bootserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
)

// systemd reads the unit, and the words are those that were given.
func TestUnit(t *testing.T) {
	s := &Server{cfg: Config{Image: `/srv/my "lab" 100 %`, Settings: "/etc/$lab.toml", Runes: []string{"/r'une"}}, link: link{Card: bootnet.Card{Name: "eth1"}}}
	words, err := s.command("/bin/true", "/key.pub")
	if err != nil {
		t.Fatal(err)
	}
	line := commandLine(words)
	const want = `/bin/true serve "/srv/my \"lab\" 100 %%" --interface eth1 --public /key.pub --settings /etc/$$lab.toml --rune "/r'une"`
	if line != want {
		t.Errorf("the command is\n%s\nwant\n%s", line, want)
	}
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	unit := filepath.Join(t.TempDir(), unitName)
	if err := os.WriteFile(unit, fmt.Appendf(nil, unitText, line), 0o644); err != nil {
		t.Fatal(err)
	}
	// It looks for the manual, too, which an installed package has.
	out, err := exec.Command(verify, "verify", "--man=no", unit).CombinedOutput()
	if err != nil || strings.Contains(string(out), unit) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
