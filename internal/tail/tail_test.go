package tail

import "testing"

func TestTailKeepsTheEnd(t *testing.T) {
	out := New(16)
	for range 1000 {
		if n, err := out.Write([]byte("0123456789\n")); n != 11 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(out.Bytes()) != 16 || out.LastLine() != "0123456789" {
		t.Errorf("%q", out.Bytes())
	}
}
