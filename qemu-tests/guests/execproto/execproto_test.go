package execproto

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

func TestBytesKeepTextReadable(t *testing.T) {
	for in, want := range map[string]string{
		"node-1\n":  `"node-1\n"`,
		"\xff\x00a": `{"base64":"/wBh"}`,
		"":          `""`,
	} {
		got, err := json.Marshal(Bytes(in))
		if err != nil || string(got) != want {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
		var back Bytes
		if err := json.Unmarshal(got, &back); err != nil || string(back) != in {
			t.Errorf("%q came back as %q, %v", in, back, err)
		}
	}
}

func TestDecodeReply(t *testing.T) {
	h, r, err := DecodeReply([]byte(`{"ready":true,"hostname":"a","init":"systemd"}` + "\n"))
	if err != nil || r != nil || h == nil || h.Hostname != "a" || h.Init != "systemd" {
		t.Errorf("hello: %+v %+v %v", h, r, err)
	}
	h, r, err = DecodeReply([]byte(`{"id":0,"exit":3,"stdout":"x","stderr":""}`))
	if err != nil || h != nil || r == nil || r.Exit != 3 || string(r.Stdout) != "x" {
		t.Errorf("response: %+v %+v %v", h, r, err)
	}
	if h, r, err = DecodeReply([]byte(" \n")); h != nil || r != nil || err != nil {
		t.Errorf("empty line: %v %v %v", h, r, err)
	}
	for _, bad := range []string{`{}`, `{"id":"x"}`, `nonsense`, `[1]`} {
		if _, _, err := DecodeReply([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestEncodeRefusesWhatNobodyReads(t *testing.T) {
	if _, err := Encode(Request{Stdin: bytes.Repeat([]byte("x"), MaxLine)}); err == nil {
		t.Error("a line longer than MaxLine was encoded")
	}
}

func FuzzDecodeReply(f *testing.F) {
	f.Add([]byte(`{"ready":true}`))
	f.Add([]byte(`{"id":7,"exit":0,"stdout":{"base64":"/w=="},"stderr":"e"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		_, r, err := DecodeReply(line)
		if err != nil || r == nil {
			return
		}
		again, err := Encode(r)
		if err != nil {
			return // larger than a line may be
		}
		_, r2, err := DecodeReply(again)
		if err != nil || r2.ID != r.ID || !bytes.Equal(r2.Stdout, r.Stdout) || !reflect.DeepEqual(r2.Error, r.Error) {
			t.Errorf("%q came back as %+v, %v", again, r2, err)
		}
	})
}
