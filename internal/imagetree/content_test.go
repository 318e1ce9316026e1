package imagetree

import (
	"bytes"
	"io"
	"testing"

	"viver.lan/internal/sparsetar"
)

func TestPackedReadAt(t *testing.T) {
	p := newPacked(bytes.NewReader([]byte("..abcdefg")), 2, []sparsetar.Segment{{Offset: 0, Length: 3}, {Offset: 8, Length: 4}}, 19)
	want := []byte("abc\x00\x00\x00\x00\x00defg\x00\x00\x00\x00\x00\x00\x00")
	for from := range len(want) + 1 {
		for to := from; to <= len(want)+2; to++ {
			got := make([]byte, to-from)
			n, err := p.ReadAt(got, int64(from))
			if !bytes.Equal(got[:n], want[from:min(to, len(want))]) || (err == io.EOF) != (to > len(want)) {
				t.Fatalf("from %d to %d: %q, %v", from, to, got[:n], err)
			}
		}
	}
}
