package livelayer

import (
	"archive/tar"
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func example() Layer {
	return Layer{Off: []string{"time"}, Settings: map[string]map[string]string{"compile": {"ccache": "no", "port": "1"}, "time": {"servers": "a b"}}, Runes: []byte("an archive"),
		History: []Change{{Version: 7, Time: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), What: "add rune web"}, {Version: 3, Time: time.Unix(1e9, 0).UTC(), What: "put /etc/motd", Digest: Digest{1, 2}}}}
}

func encoded(t testing.TB, l Layer) []byte {
	t.Helper()
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEncoding(t *testing.T) {
	data := encoded(t, example())
	if !bytes.Equal(data, encoded(t, example())) {
		t.Error("the same layer has other bytes the second time")
	}
	if back, err := Decode(data); err != nil || !reflect.DeepEqual(back, example()) {
		t.Errorf("it came back as %+v, %v", back, err)
	}
	for _, n := range []int{0, 1, 511, 512, 1024, 1536} {
		if _, err := Decode(data[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a layer", n, len(data))
		}
	}
}

func TestWhatIsNoLayer(t *testing.T) {
	archive := func(edit func(*tar.Header), names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			text := ""
			if name == headName {
				text = "format = 1\n"
			}
			h := tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text))}
			edit(&h)
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	as := func(*tar.Header) {}
	if _, err := Decode(archive(as, headName, runesName)); err != nil {
		t.Fatalf("the archives of this test are wrong: %v", err)
	}
	off := encoded(t, example())
	for what, data := range map[string][]byte{
		"too large":        make([]byte, MaxSize+1),
		"another order":    archive(as, runesName, headName),
		"one missing":      archive(as, headName),
		"one more":         archive(as, headName, runesName, "more"),
		"a directory":      archive(func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeDir, 0 }, runesName),
		"a later format":   bytes.Replace(off, []byte("format = 1"), []byte("format = 2"), 1),
		"an unknown field": bytes.Replace(off, []byte("format"), []byte("nature"), 1),
		"no digest":        bytes.Replace(off, []byte("digest = '0102"), []byte("digest = 'xx02"), 1),
		"an escape":        bytes.Replace(off, []byte("add rune"), []byte("add\x1brune"), 1),
	} {
		if l, err := Decode(data); err == nil {
			t.Errorf("%s: it is the layer %+v", what, l)
		}
	}
	for what, l := range map[string]Layer{
		"too large":      {Runes: make([]byte, MaxSize)},
		"a setting":      {Settings: map[string]map[string]string{"a": {"b": strings.Repeat("x", maxValue+1)}}},
		"no name":        {Settings: map[string]map[string]string{"": {"b": "c"}}},
		"runes off":      {Off: make([]string, maxOff+1)},
		"history":        {History: make([]Change, MaxChanges+1)},
		"not printable":  {History: []Change{{What: "a\nb"}}},
		"a long account": {History: []Change{{What: strings.Repeat("x", maxText+1)}}},
	} {
		if _, err := l.Encode(); err == nil {
			t.Errorf("%s: it is encoded", what)
		}
	}
}

func TestPointer(t *testing.T) {
	p := PointTo([]byte("layer"))
	if back, err := ParsePointer(p.String()); err != nil || back != p {
		t.Errorf("%s came back as %s, %v", p, back, err)
	}
	if back, err := ParsePointer(""); err != nil || back != (Pointer{}) {
		t.Errorf("no layer is %s, %v", back, err)
	}
	if p.Check([]byte("layer")) != nil || p.Check([]byte("layes")) == nil || p.Check([]byte("lay")) == nil {
		t.Error("it does not tell its layer from others")
	}
	digest := p.Digest.String()
	for _, s := range []string{digest, digest + "/", digest + "/0", digest + "/-1", digest + "/+5", digest + "/05", digest + "/99999999999", digest + "/5/5",
		strings.ToUpper(digest) + "/5", digest[1:] + "/5", "0" + digest + "/5", "x"} {
		if got, err := ParsePointer(s); err == nil {
			t.Errorf("%q points to %s", s, got)
		}
	}
	if p.Digest.Mark().String() != digest[:16] || (Mark{}).String() != "" {
		t.Errorf("the mark of %s is %s", digest, p.Digest.Mark())
	}
}

func TestHistory(t *testing.T) {
	var l Layer
	var last Pointer
	for n := range uint64(MaxChanges + 2) {
		l = l.After(l, last, Change{Version: n + 1, What: strings.Repeat("long ", 100)})
		last = PointTo(encoded(t, l))
		if len(l.History) > 1 && l.History[1].Digest == (Digest{}) {
			t.Fatalf("the layer before version %d has no digest: %+v", n+1, l.History)
		}
	}
	if len(l.History) != MaxChanges || l.History[0].Version != MaxChanges+2 || l.History[0].Digest != (Digest{}) || l.History[MaxChanges-1].Version != 3 {
		t.Errorf("the history is %+v", l.History)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, example()))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Decode(data)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil { // it fits only without what stood around it
			return
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("%+v came back with %v", l, err)
		}
		if b, err := back.Encode(); err != nil || !bytes.Equal(b, again) {
			t.Errorf("%+v came back as %+v, %v", l, back, err)
		}
	})
}

func FuzzParsePointer(f *testing.F) {
	f.Add(PointTo([]byte("layer")).String())
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePointer(s); err == nil && p.String() != s {
			t.Errorf("%q came back as %q", s, p)
		}
	})
}
