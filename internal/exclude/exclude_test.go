package exclude

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestLeftOut(t *testing.T) {
	r, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"proc": false, "proc/1": true, "etc/ssh/ssh_host_rsa_key.pub": true, "etc/ssh/sshd_config": false,
		"home/anna/.cache": true, "home/anna/.config": false, "boot/initrd.img-6.1": true, "boot/vmlinuz-6.1": false,
		"var/log/journal/123": true, "var/log/journal": false, "swap.img": true, "usr/swapfile": false,
	} {
		if got := r.Match(name) != nil; got != want {
			t.Errorf("Match(%q) = %v", name, got)
		}
	}
	for _, rule := range leaveOut {
		for _, p := range rule.Patterns {
			if _, err := path.Match(p, "x"); err != nil || rule.reason == "" {
				t.Errorf("pattern %q: %v, reason %q", p, err, rule.reason)
			}
		}
	}
}

// TestImagesPageNamesEveryRule holds docs/images.md against the rules.
func TestImagesPageNamesEveryRule(t *testing.T) {
	page, err := os.ReadFile("../../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range append(slices.Clone(leaveOut), Emptied) {
		if !strings.Contains(string(page), rule.reason) {
			t.Errorf("no word of %q", rule.reason)
		}
		for _, p := range rule.Patterns {
			if !strings.Contains(string(page), "`/"+p+"`") {
				t.Errorf("no word of /%s", p)
			}
		}
	}
}

// TestRulesThatKeepDoesNotLift asks for what nobody gets.
func TestRulesThatKeepDoesNotLift(t *testing.T) {
	r, err := New([]string{"/", "*", "root/.config/viver/*", "proc"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"root/.config/viver/owner.key": true, "proc/1": true, "tmp/x": false, "root/.ssh/id_rsa": false} {
		if rule, _ := r.Out(name); (rule != nil) != want {
			t.Errorf("%s: %v", name, rule)
		}
	}
	if _, err := New([]string{"["}); err == nil {
		t.Error("a bad pattern")
	}
}

func TestReport(t *testing.T) {
	r := NewReport()
	more := r.LeftOut(Swap, "swap\nfile", 1<<20)
	more(1)
	r.LeftOut(Recreated, "proc/1", 0)
	r.Emptied(SigningKey, "srv/key", 300)
	r.Changed(FileChanged, "var/log/x: it shrank", 20<<10)
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `# left out, swap space, which holds a machine's memory: 1, 1048577 bytes
1048577	"/swap\nfile"
# left out, made again at every boot: 1, 0 bytes
0	/proc/1
# emptied, a key that signs images, and an image is no secret: 1, 300 bytes
300	/srv/key
# files that changed while they were read: 1, 20480 bytes
20480	/var/log/x: it shrank
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	lines := []string{
		`left out, swap space, which holds a machine's memory: 1, 1024 KiB: "/swap\nfile" (--keep brings it)`,
		"emptied, a key that signs images, and an image is no secret: 1, 300 bytes: /srv/key",
		"files that changed while they were read: 1, 20 KiB: /var/log/x: it shrank",
	}
	if got := r.Lines(); !slices.Equal(got, lines) {
		t.Errorf("got %q", got)
	}
}
