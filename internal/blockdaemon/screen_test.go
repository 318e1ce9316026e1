package blockdaemon

import (
	"bytes"
	"testing"
)

func TestScreen(t *testing.T) {
	var b bytes.Buffer
	s := &screen{w: &b, columns: func() int { return 10 }}
	s.Write([]byte("one\n"))
	s.show("12 of 56 pieces")
	s.show("12 of 56 pieces") // not drawn again
	s.Write([]byte("two\n"))
	s.show("")
	s.Write([]byte("three\n"))
	if want := "one\n\r\x1b[K12 of 56 \r\x1b[Ktwo\n12 of 56 \r\x1b[Kthree\n"; b.String() != want {
		t.Errorf("drawn %q, want %q", b.String(), want)
	}
	b.Reset()
	s.columns = nil
	s.show("a line")
	s.Write([]byte("log\n"))
	if b.String() != "log\n" {
		t.Errorf("without a terminal: %q", b.String())
	}
}
