package wire

import (
	"bytes"
	"testing"
)

// extended reads one extension message back.
func extended(t *testing.T, b []byte) Message {
	t.Helper()
	m, err := NewReader(bytes.NewReader(b), Limits{Pieces: 10, Block: BlockSize}).Next()
	if err != nil || m.Type != Extended {
		t.Fatalf("%+v, %v", m, err)
	}
	return m
}

func TestCopies(t *testing.T) {
	c := Challenge{Piece: 9, Nonce: [ChallengeSize]byte{1, 2, 15: 3}}
	m := extended(t, Extension(7, c.Payload()).Append(nil))
	if got, err := ParseChallenge(m.Payload, 10); err != nil || got != c || m.ExtendedID != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	a := Answer{Piece: 3, Digest: [DigestSize]byte{4, 31: 5}}
	if _, err := ParseChallenge(append([]byte{0, 0, 0, 10}, m.Payload[4:]...), 10); err == nil {
		t.Error("a challenge about a piece that does not exist")
	}
	m = extended(t, Extension(8, a.Payload()).Append(nil))
	if got, err := ParseAnswer(m.Payload, 10); err != nil || got != a || m.ExtendedID != 8 {
		t.Errorf("%+v, %v", got, err)
	}
	for name, payload := range map[string][]byte{
		"empty": nil, "short": m.Payload[:35], "long": append(bytes.Clone(m.Payload), 0), "no such piece": append([]byte{0, 0, 0, 10}, m.Payload[4:]...),
		"far beyond": append([]byte{255, 255, 255, 255}, m.Payload[4:]...),
	} {
		if _, err := ParseAnswer(payload, 10); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := ParseChallenge(payload[:min(len(payload), 19)], 10); err == nil {
			t.Errorf("%s: no error for a challenge", name)
		}
	}
}

func FuzzCopies(f *testing.F) {
	f.Add(Extension(4, Challenge{Piece: 1}.Payload()).Append(nil)[6:])
	f.Add(Extension(5, Answer{Piece: 2}.Payload()).Append(nil)[6:])
	f.Fuzz(func(t *testing.T, payload []byte) {
		if c, err := ParseChallenge(payload, 1000); err == nil && (c.Piece < 0 || c.Piece >= 1000 || !bytes.Equal(Extension(0, c.Payload()).Append(nil)[6:], payload)) {
			t.Errorf("challenge %x became %+v", payload, c)
		}
		if a, err := ParseAnswer(payload, 1000); err == nil && (a.Piece < 0 || a.Piece >= 1000 || !bytes.Equal(Extension(0, a.Payload()).Append(nil)[6:], payload)) {
			t.Errorf("answer %x became %+v", payload, a)
		}
	})
}
