package boothost

import "testing"

func TestBlocksFitTheLink(t *testing.T) {
	for mtu, want := range map[int]int{1500: 1468, 9000: 1468, 1280: 1248, 576: 544, 68: 512} {
		if got := blockFor(mtu); got != want {
			t.Errorf("MTU %d: blocks of %d bytes, want %d", mtu, got, want)
		}
	}
}
