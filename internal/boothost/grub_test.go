package boothost

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// grubPlayed is what GRUB's commands do in played.
const grubPlayed = `root=tftp
call() { echo "$*" >>calls; ! grep -qxF "$*" fails; }
linux() { call linux "${1%%:*}"; }
initrd() { call initrd "${1%%:*}"; }
boot() { if call boot; then exit; fi; }
reboot() { call reboot; exit; }
sleep() { :; }
`

// played runs GRUB's configuration as a shell script, whose loops and conditions
// are written alike. A call that is in fails fails. It returns the calls until the
// machine started, or started over.
func played(t *testing.T, text string, fails ...string) string {
	t.Helper()
	dir := t.TempDir()
	text = strings.NewReplacer("($from)", "$from:", "($next)", "$next:").Replace(text)
	for name, data := range map[string]string{"script": grubPlayed + text, "fails": strings.Join(fails, "\n") + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sh := exec.Command("sh", "script")
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(calls)), "\n", ", ")
}

// TestGrubEndsByItself: whatever fails, the machine starts or starts over, and GRUB
// loads no second kernel, whose failure would have it wait for a key.
func TestGrubEndsByItself(t *testing.T) {
	p := newHost(t, testConfig(t)).catalog.plan
	text := string(p.grubFor("52:54:00:12:34:56", []netip.AddrPort{netip.MustParseAddrPort("10.77.0.5:80"), netip.MustParseAddrPort(selfIP + ":80")}))
	const peer, self, root = " http,10.77.0.5", " http," + selfIP, " tftp"
	none := "linux" + peer + ", linux" + self + ", linux" + root
	for name, tc := range map[string]struct {
		fails []string
		want  string
	}{
		"nothing":              {nil, "linux" + peer + ", initrd" + peer + ", boot"},
		"the peer":             {[]string{"linux" + peer}, "linux" + peer + ", linux" + self + ", initrd" + self + ", boot"},
		"the peer's initramfs": {[]string{"initrd" + peer}, "linux" + peer + ", initrd" + peer + ", initrd" + peer + ", initrd" + self + ", boot"},
		"each initramfs": {[]string{"initrd" + peer, "initrd" + self, "initrd" + root},
			"linux" + peer + ", initrd" + peer + ", initrd" + peer + ", initrd" + self + ", initrd" + root + ", reboot"},
		"the start": {[]string{"boot"}, "linux" + peer + ", initrd" + peer + ", boot, reboot"},
		"all":       {strings.Split(none, ", "), strings.Repeat(none+", ", 6) + "reboot"},
	} {
		if got := played(t, text, tc.fails...); got != tc.want {
			t.Errorf("%s fails: GRUB is told %s, want %s", name, got, tc.want)
		}
	}
}

// TestGrubReadsIt has GRUB's own reader check the syntax.
func TestGrubReadsIt(t *testing.T) {
	check, err := exec.LookPath("grub-script-check")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"grub.cfg.golden", "grub.cfg-mac.golden"} {
		if out, err := exec.Command(check, filepath.Join("testdata", name)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
