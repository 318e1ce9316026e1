package sign

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newKey(t testing.TB) PrivateKey {
	t.Helper()
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func TestVerify(t *testing.T) {
	key, other := newKey(t), newKey(t)
	for _, message := range [][]byte{nil, []byte("{}"), bytes.Repeat([]byte("manifest "), 20000)} {
		s := key.Sign(Manifest, message)
		if err := key.Public().Verify(Manifest, message, s); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s, key.Sign(Manifest, message)) {
			t.Error("signing again gives other bytes")
		}
		refused(t, key.Public().Verify(Override, message, s), `as "viver manifest", expected "viver entry"`)
		refused(t, other.Public().Verify(Manifest, message, s), "signed by key "+key.Public().ID()+", expected key "+other.Public().ID())
		refused(t, PublicKey{}.Verify(Manifest, message, s), "no public key")
		refused(t, key.Public().Verify(Manifest, append([]byte("x"), message...), s), "does not belong to these bytes")
	}
	refused(t, key.Public().Verify(Manifest, nil, nil), "not a minisign signature")
	refused(t, key.Public().Verify(Manifest, nil, make([]byte, MaxKeySize+1)), "larger")
	refused(t, PublicKey{}.Verify(Manifest, nil, PrivateKey{}.Sign(Manifest, nil)), "no public key")
}

// TestATakenName lets a stranger's key bear the owner's ID: the ID is a name,
// not a proof.
func TestATakenName(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	m := []byte("{}")
	mine, theirs := key.Sign(Manifest, m), stranger.Sign(Manifest, m)
	s, err := parseSignature(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if s.KeyID = key.key.ID(); bytes.Equal(mine, []byte(s.String())) {
		t.Fatal("the same signature by two keys")
	}
	refused(t, key.Public().Verify(Manifest, m, []byte(s.String())), "another key made it")
}

// TestEveryByteCounts changes each bit, and cuts at each byte. Only the text of
// the first line, which minisign calls untrusted, may say anything.
func TestEveryByteCounts(t *testing.T) {
	key, message := newKey(t), []byte(`{"format":1}`)
	s := key.Sign(Manifest, message)
	free := len("untrusted comment: ")
	fixed := bytes.IndexByte(s, '\n')
	for i := range s {
		for bit := range 8 {
			changed := bytes.Clone(s)
			changed[i] ^= 1 << bit
			err := key.Public().Verify(Manifest, message, changed)
			comment := i >= free && i < fixed && changed[i] != '\n' && changed[i] != '\r'
			if !comment && err == nil {
				t.Errorf("bit %d of byte %d (%q) changed: accepted", bit, i, s[i])
			}
		}
		if key.Public().Verify(Manifest, message, s[:i]) == nil {
			t.Errorf("cut to %d bytes: accepted", i)
		}
	}
	for _, more := range []string{"\n", "x", "\x00"} {
		if key.Public().Verify(Manifest, message, append(bytes.Clone(s), more...)) == nil {
			t.Errorf("%q added: accepted", more)
		}
	}
	for i := range message {
		for bit := range 8 {
			changed := bytes.Clone(message)
			changed[i] ^= 1 << bit
			if key.Public().Verify(Manifest, changed, s) == nil {
				t.Errorf("bit %d of byte %d of the message changed: accepted", bit, i)
			}
		}
	}
	// A trusted comment that is changed to the right one is still not signed.
	e := key.Sign(Override, message)
	refused(t, key.Public().Verify(Manifest, message, bytes.Replace(e, []byte(Override), []byte(Manifest), 1)), "changed")
}

func minisignProgram(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func write(t *testing.T, name string, data []byte, perm os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, data, perm); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestMinisign exchanges keys and signatures with minisign(1).
func TestMinisign(t *testing.T) {
	dir := t.TempDir()
	message := []byte("{\"name\": \"debian\"}\n")
	write(t, filepath.Join(dir, "m"), message, 0o644)
	must := func(args ...string) string {
		t.Helper()
		out, err := minisignProgram(t, dir, args...)
		if err != nil {
			t.Fatalf("minisign %v: %v: %s", args, err, out)
		}
		return out
	}

	t.Run("ours", func(t *testing.T) {
		key, made, err := OpenKey(filepath.Join(dir, "ours.key"))
		if err != nil || !made {
			t.Fatal(made, err)
		}
		write(t, filepath.Join(dir, "m.minisig"), key.Sign(Manifest, message), 0o644)
		if out := must("-V", "-H", "-p", "ours.pub", "-m", "m"); !strings.Contains(out, "Trusted comment: "+string(Manifest)) {
			t.Error(out)
		}
		must("-V", "-P", key.Public().String(), "-m", "m")
		must("-S", "-s", "ours.key", "-m", "m", "-x", "again", "-t", string(Manifest))
		if err := key.Public().Verify(Manifest, message, read(t, filepath.Join(dir, "again"))); err != nil {
			t.Error(err)
		}
		write(t, filepath.Join(dir, "m.minisig"), newKey(t).Sign(Manifest, message), 0o644)
		if out, err := minisignProgram(t, dir, "-V", "-p", "ours.pub", "-m", "m"); err == nil {
			t.Error("accepted another key's signature:", out)
		}
	})

	t.Run("theirs", func(t *testing.T) {
		must("-G", "-W", "-s", "theirs.key", "-p", "theirs.pub")
		key, made, err := OpenKey(filepath.Join(dir, "theirs.key"))
		if err != nil || made {
			t.Fatal(made, err)
		}
		public, err := ReadPublicKey(filepath.Join(dir, "theirs.pub"))
		if err != nil || !public.Equal(key.Public()) {
			t.Fatal(public, err)
		}
		if !bytes.Equal(public.Text(), read(t, filepath.Join(dir, "theirs.pub"))) {
			t.Errorf("our public key file differs: %s", public.Text())
		}
		for name, args := range map[string][]string{"": {"-t", string(Manifest)}, "legacy": {"-l", "-t", string(Manifest)}, "expected \"viver manifest\"": nil} {
			must(append([]string{"-S", "-s", "theirs.key", "-m", "m", "-x", "s"}, args...)...)
			err := public.Verify(Manifest, message, read(t, filepath.Join(dir, "s")))
			if name == "" && err != nil {
				t.Error(err)
			} else if name != "" {
				refused(t, err, name)
			}
		}
	})
}

// TestShortID has minisign(1) write the public half of a key whose ID begins
// with zeros: nothing tells the two files apart.
func TestShortID(t *testing.T) {
	dir := t.TempDir()
	text, err := newKey(t).text()
	if err != nil {
		t.Fatal(err)
	}
	comment, encoded, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	// The number stands, little-endian, behind the names of the algorithms,
	// the salt and the two limits of the key derivation.
	const id = 2 + 2 + 2 + 32 + 8 + 8
	raw[id+7], raw[id+6] = 0, 0x0e
	write(t, filepath.Join(dir, "k.key"), []byte(comment+"\n"+base64.StdEncoding.EncodeToString(raw)+"\n"), 0o600)
	key, _, err := OpenKey(filepath.Join(dir, "k.key"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := minisignProgram(t, dir, "-R", "-W", "-s", "k.key", "-p", "theirs.pub"); err != nil {
		t.Fatal(err, out)
	}
	theirs := read(t, filepath.Join(dir, "theirs.pub"))
	if !bytes.Equal(key.Public().Text(), theirs) || len(key.Public().ID()) != 13 {
		t.Errorf("ours %s theirs %s", key.Public().Text(), theirs)
	}
}

func TestKeyFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config", "viver")
	path := filepath.Join(dir, KeyFile)
	key, made, err := OpenKey(path)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, KeyFile: 0o600, PublicKeyFile: 0o644} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", name, fi.Mode(), err, mode)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	again, made, err := OpenKey(path)
	if err != nil || made || !again.Public().Equal(key.Public()) {
		t.Errorf("the second time: made %v, %v", made, err)
	}
	// The public half comes back when only the secret one was restored.
	if err := os.Remove(filepath.Join(dir, PublicKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenKey(path); err != nil {
		t.Error(err)
	}
	if p, err := ReadPublicKey(filepath.Join(dir, PublicKeyFile)); err != nil || !p.Equal(key.Public()) {
		t.Error(p, err)
	}
	write(t, filepath.Join(dir, PublicKeyFile), newKey(t).Public().Text(), 0o644)
	_, _, err = OpenKey(path)
	refused(t, err, "the secret key beside it")

	text := read(t, path)
	damaged := bytes.Clone(text)
	damaged[bytes.IndexByte(text, '\n')+100] ^= 1 // inside of the base64 of the key
	for name, c := range map[string]struct {
		data []byte
		mode os.FileMode
		want string
	}{
		"open to all": {text, 0o644, "chmod 600"},
		"empty":       {nil, 0o600, "not a minisign secret key"},
		"cut":         {text[:len(text)/2], 0o600, "not a minisign secret key"},
		"large":       {make([]byte, MaxKeySize+1), 0o600, "not a file with a key"},
		"damaged":     {damaged, 0o600, "key"},
		"a password":  {bytes.Replace(text, []byte("RWQAAEIy"), []byte("RWRTY0Iy"), 1), 0o600, "has a password"},
		"public half": {key.Public().Text(), 0o600, "not a minisign secret key"},
	} {
		name = filepath.Join(dir, name)
		write(t, name, c.data, c.mode)
		_, _, err := OpenKey(name)
		refused(t, err, c.want)
		if !bytes.Equal(read(t, name), c.data) {
			t.Errorf("%s was changed", name)
		}
	}
	_, err = ReadPrivateKey(filepath.Join(dir, "none"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	_, err = ReadPublicKey(path)
	refused(t, err, "not a minisign public key")
}

// TestOneKey starts many first uses at once: they agree on one key.
func TestOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), KeyFile)
	var group sync.WaitGroup
	ids := make([]string, 16)
	for i := range ids {
		group.Go(func() {
			k, _, err := OpenKey(path)
			if err != nil {
				t.Error(err)
			}
			ids[i] = k.Public().ID()
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("several keys: %v", ids)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newKey(f)
	s := key.Sign(Manifest, []byte("{}"))
	f.Add(s)
	f.Add(s[:len(s)-1])
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Nobody but the holder signs: what was not signed here is refused.
		if err := key.Public().Verify(Manifest, []byte("{ }"), text); err == nil {
			t.Errorf("accepted %q", text)
		}
		if k, err := ParsePublicKey(text); err == nil && k.Verify(Manifest, []byte("{ }"), s) == nil {
			t.Errorf("key %q accepts another's signature", text)
		}
		_, _ = parsePrivateKey(text) // must not panic
	})
}
