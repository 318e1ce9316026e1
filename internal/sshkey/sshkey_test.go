package sshkey

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// generate has ssh-keygen make a key and returns the public half.
func generate(t *testing.T, kind string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@lab", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	text, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func haveSSH(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed")
	}
}

// OpenSSH reads the private half, and finds the same public one and the comment.
func TestGenerate(t *testing.T) {
	haveSSH(t)
	private, public, err := Generate("root@lab-07")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-y", "-P", "", "-f", file).Output()
	if got := string(out); err != nil || got != public+"\n" || !strings.HasSuffix(public, " root@lab-07") {
		t.Errorf("ssh-keygen reads %q, %v; the public half is %q", got, err, public)
	}
	if _, err := Parse([]byte(public)); err != nil {
		t.Error(err)
	}
	if again, _, _ := Generate("root@lab-07"); again == private {
		t.Error("two keys are the same")
	}
}

func TestParse(t *testing.T) {
	haveSSH(t)
	text := generate(t, "ed25519")
	key, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.String()+" root@lab\n", string(text); got != want {
		t.Errorf("it comes back as %q, want %q", got, want)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "another kind": generate(t, "ecdsa"), "no base64": []byte("ssh-ed25519 ="),
		"short": []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="), "kind only": []byte("ssh-ed25519"),
	} {
		if k, err := Parse(text); err == nil {
			t.Errorf("%s is read as %s", name, k)
		}
	}
	if s := (Key{}).String(); s != "" {
		t.Errorf("no key reads %q", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Key{1}.String() + " root@lab"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Parse(text)
		if err != nil || k == (Key{}) {
			return
		}
		if back, err := Parse([]byte(k.String())); err != nil || back != k {
			t.Errorf("%s came back as %s, %v", k, back, err)
		}
	})
}

// The file is read by ssh-keygen, as ssh reads it.
func TestKnownHosts(t *testing.T) {
	haveSSH(t)
	address := netip.MustParseAddr
	var keys [4]Key
	for i := range keys {
		var err error
		if keys[i], err = Parse(generate(t, "ed25519")); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, KnownHosts([]Host{
		{"lab-01", address("10.77.0.1"), keys[0]},
		{"lab-02", address("10.77.0.2"), Key{}}, // has said none
		{"Lab-03", address("10.77.0.3"), keys[1]},
		{"lab-03", address("10.77.0.33"), keys[2]}, // says it is the one before
		{"*", address("10.77.0.4"), keys[3]},
		{"example.org", address("10.77.0.5"), keys[3]},
		{"10", address("10.77.0.6"), keys[3]},
		{"a,b !c", address("10.77.0.7"), keys[3]},
	}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Key{
		"lab-01": keys[0], "10.77.0.1": keys[0], "lab-02": {}, "10.77.0.2": {}, "lab-03": {}, "10.77.0.3": keys[1], "10.77.0.33": keys[2],
		"somebody": {}, "10.77.0.4": keys[3], "example.org": {}, "10.77.0.5": keys[3], "10": {}, "10.77.0.6": keys[3], "b": {}, "10.77.0.7": keys[3],
	} {
		out, _ := exec.Command("ssh-keygen", "-F", name, "-f", file).Output() // exit status 1: not found
		if got := string(out); want == (Key{}) && got != "" || !strings.Contains(got, want.String()) {
			t.Errorf("ssh-keygen finds for %s %q, want %q", name, got, want)
		}
	}
}
