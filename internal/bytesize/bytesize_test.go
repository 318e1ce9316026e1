package bytesize

import "testing"

func TestWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 10<<10 - 1: "10239 bytes", 10 << 10: "10 KiB", 1<<20 - 1: "1023 KiB",
		3 << 19: "1.5 MiB", 15<<20 + 1: "15 MiB", 3 << 29: "1.5 GiB", 58 << 30: "58 GiB", 2 << 40: "2048 GiB"} {
		if got := Words(n); got != want {
			t.Errorf("Words(%d) = %q, want %q", n, got, want)
		}
	}
}
