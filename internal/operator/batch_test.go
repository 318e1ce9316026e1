package operator

import (
	"bytes"
	"reflect"
	"testing"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
)

func TestBatch(t *testing.T) {
	e := Override{Network: "n", Key: "name/x", Value: "lab-1", Sequence: 7, Signature: []byte("s")}
	sender := identitytest.ID("a")
	for _, m := range []Batch{{Sender: sender}, {Sender: sender, Overrides: []Override{e, e}}} {
		if back, err := ParseBatch(m.Append(nil)); err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
	}
	cut := Batch{Sender: sender, Overrides: []Override{e, e}}.Append(nil)
	if m, err := ParseBatch(cut[:len(cut)-1]); err == nil || m.Sender != sender || len(m.Overrides) != 1 {
		t.Errorf("a message that is cut off: %+v, %v", m, err)
	}
	for n := range 256 { // each length that the first byte can claim
		claim := append([]byte{byte(n)}, bytes.Repeat([]byte{'x'}, 300)...)
		if m, _ := ParseBatch(claim); m.Sender.IsZero() == (n == identity.IDSize) {
			t.Errorf("a sender of %d bytes: %q", n, m.Sender)
		}
		if m, err := ParseBatch(claim[:max(n, 1)]); err == nil {
			t.Errorf("a sender of %d bytes, one of them missing: %+v", n, m)
		}
	}
	for _, junk := range [][]byte{nil, {0}, {255}, {1}, []byte("\x10abcdefghijklmno1"), []byte("\x10ABCDEFGHIJKLMNOP")} {
		if m, err := ParseBatch(junk); err == nil {
			t.Errorf("%q is a message: %+v", junk, m)
		}
	}
}

func FuzzParseBatch(f *testing.F) {
	e := Override{Network: "n", Key: "name/x", Value: "lab-1", Sequence: 7, Signature: []byte("s")}
	f.Add(Batch{Sender: identitytest.ID("node"), Overrides: []Override{e, e}}.Append(nil))
	f.Add(append([]byte{255}, make([]byte, 300)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseBatch(b)
		if err != nil {
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%q came back as %q", b, again)
		}
	})
}
