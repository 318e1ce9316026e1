package blockdaemon

import (
	"net/netip"
	"testing"

	"viver.lan/internal/ether"
)

func TestDefaultName(t *testing.T) {
	any, one := netip.MustParseAddrPort("0.0.0.0:6881"), netip.MustParseAddrPort("10.77.0.6:6881")
	own, local := ether.MAC{0x02, 0, 0, 0, 0, 1}, ether.MAC{0x52, 0x54, 0, 0, 0, 2}
	maker := ether.MAC{0xb8, 0x27, 0xeb, 0, 0, 3}
	for _, c := range []struct {
		swarm netip.AddrPort
		macs  []ether.MAC
		want  string
	}{
		{any, nil, "lab:6881"},
		{any, []ether.MAC{local, own}, "lab:6881/02:00:00:00:00:01"},
		{any, []ether.MAC{local, own, maker}, "lab:6881/b8:27:eb:00:00:03"},
		{one, []ether.MAC{maker}, "lab/10.77.0.6:6881/b8:27:eb:00:00:03"},
		{netip.MustParseAddrPort("[fe80::1234:5678:9abc:def0%eth0]:6881"), []ether.MAC{maker}, "lab/[fe80::1234:5678:9abc:def0%eth0]:6881/b8:27:eb:00:00:03"},
	} {
		if got := defaultName("lab", c.swarm, c.macs); got != c.want {
			t.Errorf("name %q, want %q", got, c.want)
		}
	}
}
