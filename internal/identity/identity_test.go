package identity

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
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
	if got := Public(raw).ID(); got.String() != "eh7ddx5bksrgcytl" {
		t.Errorf("id %s", got)
	}
	k := generate(t)
	if id := k.ID(); id.IsZero() || id != k.Public().ID() {
		t.Errorf("id %q", id)
	}
}

// An ID is its text in JSON, and nobody's is "".
func TestIDAsText(t *testing.T) {
	type both struct{ ID, None ID }
	want := both{ID: generate(t).ID()}
	text, err := json.Marshal(want)
	if err != nil || string(text) != fmt.Sprintf(`{"ID":%q,"None":""}`, want.ID) {
		t.Errorf("%s, %v", text, err)
	}
	got := both{None: want.ID}
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if err := got.None.UnmarshalText([]byte("node-1")); err == nil {
		t.Error("no error")
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k := generate(t)
	secret := fmt.Sprint([]byte(k.private))
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, k); text != k.ID().String() || strings.Contains(text, secret) {
			t.Errorf("%s prints %q", format, text)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	text, err := generate(f).Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := ParseKey(text); err == nil && !k.Public().Verify("p", k.Sign("p", text), text) {
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
