package operator

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A signature in these tests is the message itself, backwards.
func signed(key, value string, sequence uint64) Override {
	e := Override{Network: "n", Key: key, Value: value, Sequence: sequence}
	e.Signature = backwards(e.SignedBytes())
	return e
}

func backwards(b []byte) (out []byte) {
	for _, c := range b {
		out = append([]byte{c}, out...)
	}
	return out
}

var errForged = errors.New("forged")

func verify(message, signature []byte) error {
	if !bytes.Equal(signature, backwards(message)) {
		return errForged
	}
	return nil
}

func equal(a, b Override) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Sequence == b.Sequence && a.Time == b.Time && a.Network == b.Network && bytes.Equal(a.Signature, b.Signature)
}

func TestEncoding(t *testing.T) {
	want := []Override{signed("a", "", 1), signed("name/52:54:00:00:00:01", "lab-1", 1<<63),
		{Network: strings.Repeat("n", maxNetwork), Key: strings.Repeat("k", maxKey), Value: strings.Repeat("v", maxValue), Sequence: 1, Time: 1 << 63, Signature: make([]byte, maxSignature)}}
	var b []byte
	for _, e := range want {
		if n := len(e.Append(nil)); n > MaxSize {
			t.Errorf("%s takes %d bytes, more than %d", e.Key, n, MaxSize)
		}
		b = e.Append(b)
	}
	for _, w := range want {
		e, rest, err := Parse(b)
		if err != nil || !equal(e, w) {
			t.Fatalf("%+v came back as %+v, %v", w, e, err)
		}
		b = rest
	}
	if len(b) != 0 {
		t.Errorf("%d bytes left", len(b))
	}
	whole := want[1].Append(nil)
	for n := range whole {
		if _, _, err := Parse(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(whole))
		}
	}
}

func TestAllOfThem(t *testing.T) {
	var want []Override
	for i := range MaxOverrides {
		want = append(want, signed(fmt.Sprintf("k%04d", i), "x", 1))
	}
	whole := AppendAll(nil, want)
	if got, err := ParseAll(whole, MaxOverrides); err != nil || !slices.EqualFunc(got, want, equal) {
		t.Errorf("%d overrides came back, %v", len(got), err)
	}
	if got, err := ParseAll(whole[:len(whole)-1], MaxOverrides); err == nil || !slices.EqualFunc(got, want[:MaxOverrides-1], equal) {
		t.Errorf("of a file that is cut off %d overrides came back, %v", len(got), err)
	}
	if got, err := ParseAll(want[0].Append(whole), MaxOverrides); err == nil || len(got) != MaxOverrides {
		t.Errorf("of too many overrides %d came back, %v", len(got), err)
	}
	if got, err := ParseAll(nil, MaxOverrides); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	for what, e := range map[string]Override{
		"no key":         signed("", "x", 1),
		"long key":       signed(strings.Repeat("k", maxKey+1), "x", 1),
		"key of two":     signed("a b", "x", 1),
		"escape":         signed("a", "\x1b[2J", 1),
		"long value":     signed("a", strings.Repeat("v", maxValue+1), 1),
		"no number":      signed("a", "x", 0),
		"no network":     {Key: "a", Sequence: 1},
		"long network":   {Network: strings.Repeat("n", maxNetwork+1), Key: "a", Sequence: 1},
		"long signature": {Network: "n", Key: "a", Sequence: 1, Signature: make([]byte, maxSignature+1)},
	} {
		table := Table{Network: e.Network}
		if err := table.Accept(e, func(_, _ []byte) error { return nil }); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestWhichOverrideIsUsed(t *testing.T) {
	table := Table{Network: "n"}
	forged := signed("a", "evil", 99)
	forged.Signature[0]++
	unsigned := Override{Network: "n", Key: "a", Value: "evil", Sequence: 99}
	elsewhere := signed("a", "evil", 99)
	elsewhere.Network = "earlier"
	elsewhere.Signature = backwards(elsewhere.SignedBytes())
	later := signed("a", "three", 5)
	later.Time = 1
	later.Signature = backwards(later.SignedBytes())
	for i, step := range []struct {
		e    Override
		want error
		now  string
	}{
		{unsigned, errForged, ""},
		{signed("a", "one", 5), nil, "one"},
		{forged, errForged, "one"},
		{unsigned, errForged, "one"},
		{signed("a", "one", 5), ErrKnown, "one"},
		{signed("a", "old", 4), ErrOlder, "one"},
		{signed("a", "two", 5), nil, "two"},
		{signed("a", "one", 5), ErrOlder, "two"}, // the same in any order
		{later, nil, "three"},
		{signed("a", "zzz", 5), ErrOlder, "three"},
		{elsewhere, ErrNetwork, "three"},
		{signed("a", "", 6), nil, ""},
		{signed("a", "two", 5), ErrOlder, ""}, // what was taken back stays back
	} {
		if err := table.Accept(step.e, verify); !errors.Is(err, step.want) {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
		if v := table.Value("a"); v != step.now {
			t.Errorf("step %d: %q counts, want %q", i, v, step.now)
		}
	}
	for i := range 2 * MaxOverrides {
		_ = table.Accept(signed(fmt.Sprintf("k%04d", i), "x", 1), verify)
	}
	if n := len(table.Overrides()); n != MaxOverrides {
		t.Errorf("%d overrides are kept, want %d", n, MaxOverrides)
	}
	if err := table.Accept(signed("a", "again", 7), verify); err != nil {
		t.Errorf("a full table takes no news: %v", err)
	}
}

// A node that does not know yet which network it is on takes nothing; what is
// signed for one network cannot be made one for another.
func TestOverridesAreOfOneNetwork(t *testing.T) {
	var table Table
	e := signed("a", "x", 1)
	if err := table.Accept(e, verify); !errors.Is(err, ErrNetwork) {
		t.Errorf("without a network: %v", err)
	}
	table.Network = "other"
	if err := table.Accept(e, verify); !errors.Is(err, ErrNetwork) {
		t.Errorf("in another network: %v", err)
	}
	e.Network = "other"
	if err := table.Accept(e, verify); !errors.Is(err, errForged) {
		t.Errorf("with another network's name: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(signed("name/52:54:00:00:00:01", "lab-1", 7).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := Parse(b)
		if err != nil {
			return
		}
		if again := append(e.Append(nil), rest...); !bytes.Equal(again, b) {
			t.Errorf("%x came back as %x", b, again)
		}
	})
}
