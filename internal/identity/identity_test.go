package identity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func generate(tb testing.TB) Key {
	tb.Helper()
	k, err := Generate()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestSignatureIsOfPartsAndPurpose(t *testing.T) {
	k, other := generate(t), generate(t)
	a, b := []byte("ab"), []byte("c")
	signature := k.Sign("one", a, b)
	if len(signature) != SignatureSize || !k.Public().Verify("one", signature, a, b) {
		t.Fatal("a right signature is refused")
	}
	changed := append([]byte(nil), signature...)
	changed[5] ^= 1
	for name, ok := range map[string]bool{
		"another purpose":     k.Public().Verify("two", signature, a, b),
		"another key":         other.Public().Verify("one", signature, a, b),
		"other parts":         k.Public().Verify("one", signature, b, a),
		"parts cut elsewhere": k.Public().Verify("one", signature, []byte("a"), []byte("bc")),
		"parts joined":        k.Public().Verify("one", signature, []byte("abc")),
		"a part too many":     k.Public().Verify("one", signature, a, b, nil),
		"a changed signature": k.Public().Verify("one", changed, a, b),
		"a short signature":   k.Public().Verify("one", signature[:10], a, b),
		"none":                k.Public().Verify("one", nil, a, b),
		"no key":              Public{}.Verify("one", signature, a, b),
		"a zero key's":        Public{}.Verify("one", Key{}.Sign("one", a, b), a, b),
	} {
		if ok {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestIDFollowsFromTheKey(t *testing.T) {
	// The public key of RFC 8032, 7.1, test 1; its SHA-256 by sha256sum(1).
	raw, err := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	if err != nil {
		t.Fatal(err)
	}
	if got := Public(raw).ID(); got != "eh7ddx5bksrgcytl" {
		t.Errorf("id %s", got)
	}
	k := generate(t)
	if id := k.ID(); len(id) != idSize || id != k.Public().ID() {
		t.Errorf("id %q", id)
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k := generate(t)
	secret := fmt.Sprint([]byte(k.private))
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, k); text != string(k.ID()) || strings.Contains(text, secret) {
			t.Errorf("%s prints %q", format, text)
		}
	}
}

func TestOpenKeepsTheKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read before there is one: %v", err)
	}
	first, made, err := Open(path)
	if err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	again, made, err := Open(path)
	if err != nil || made || again.ID() != first.ID() {
		t.Fatalf("%v made %v, %v; want %v", again, made, err, first)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", fi.Mode(), err)
	}
}

func TestBadKeyFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	good, _, err := Open(filepath.Join(dir, "good"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := good.Text()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("good", link); err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{link, dir,
		write("open", text, 0o644), write("empty", nil, 0o600), write("cut", text[:len(text)/2], 0o600),
		write("other", []byte(strings.ReplaceAll(string(text), "PRIVATE", "PUBLIC")), 0o600),
	} {
		if _, made, err := Open(path); err == nil || made {
			t.Errorf("%s: made %v, %v", filepath.Base(path), made, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := generate(f).Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := Parse(text); err == nil && !k.Public().Verify("p", k.Sign("p", text), text) {
			t.Error("a key that cannot sign")
		}
	})
}

func BenchmarkGenerate(b *testing.B) {
	for b.Loop() {
		generate(b)
	}
}

func BenchmarkSign(b *testing.B) {
	k, part := generate(b), make([]byte, 200)
	for b.Loop() {
		k.Sign("p", part)
	}
}

func BenchmarkVerify(b *testing.B) {
	k, part := generate(b), make([]byte, 200)
	signature := k.Sign("p", part)
	for b.Loop() {
		if !k.Public().Verify("p", signature, part) {
			b.Fatal("refused")
		}
	}
}

func TestEachStartIsGreater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sequence")
	var last uint64
	for i, clock := range []uint64{1000, 1000, 5, 2000, 0, 1 << 62} {
		start, err := NextStart(path, clock)
		if err != nil || start <= last || Sequence(start) <= Sequence(last) {
			t.Errorf("start %d at %d: %d after %d, %v", i, clock, start, last, err)
		}
		last = start
	}
	for _, junk := range []string{"", "x", "-1", "99999999999999999999", "1152921504606846976"} {
		if err := os.WriteFile(path, []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if start, err := NextStart(path, 7); err != nil || start != 7 {
			t.Errorf("after %q: %d, %v", junk, start, err)
		}
	}
	if start, err := NextStart(filepath.Join(path, "nowhere"), 7); err == nil || start != 7 {
		t.Errorf("where nothing can be kept: %d, %v", start, err)
	}
}
