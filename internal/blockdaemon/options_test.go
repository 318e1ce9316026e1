package blockdaemon

import (
	"net"
	"net/netip"
	"testing"
)

func TestDefaultName(t *testing.T) {
	any, one := netip.MustParseAddrPort("0.0.0.0:6881"), netip.MustParseAddrPort("10.77.0.6:6881")
	own, local := net.HardwareAddr{0x02, 0, 0, 0, 0, 1}, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}
	maker := net.HardwareAddr{0xb8, 0x27, 0xeb, 0, 0, 3}
	for _, c := range []struct {
		swarm netip.AddrPort
		macs  []net.HardwareAddr
		want  string
	}{
		{any, nil, "lab:6881"},
		{any, []net.HardwareAddr{local, own}, "lab:6881/02:00:00:00:00:01"},
		{any, []net.HardwareAddr{local, own, maker}, "lab:6881/b8:27:eb:00:00:03"},
		{one, []net.HardwareAddr{maker}, "lab/10.77.0.6:6881/b8:27:eb:00:00:03"},
		{netip.MustParseAddrPort("[fe80::1234:5678:9abc:def0%eth0]:6881"), []net.HardwareAddr{maker}, "lab/[fe80::1234:5678:9abc:def0%eth0]:6881/b8:27:eb:00:00:03"},
	} {
		if got := defaultName("lab", c.swarm, c.macs); got != c.want {
			t.Errorf("name %q, want %q", got, c.want)
		}
	}
}
