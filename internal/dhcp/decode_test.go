package dhcp

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// packetOf is a DISCOVER with options as they stand on the wire.
func packetOf(options []byte, change func(packet []byte)) []byte {
	packet := make([]byte, optionsField, optionsField+len(options))
	copy(packet, []byte{1, 1, 6})
	copy(packet[28:], []byte{2, 0, 0, 0, 0, 1})
	copy(packet[cookieField:], []byte{0x63, 0x82, 0x53, 0x63})
	packet = append(packet, options...)
	if change != nil {
		change(packet)
	}
	return packet
}

func TestDecodeReadsWhatIsSent(t *testing.T) {
	class := append([]byte{60, 9}, "PXEClient"...)
	discover := []byte{53, 1, 1}
	for name, packet := range map[string][]byte{
		"as RFC 2131 wants it": packetOf(append(append(discover, class...), 255, 0, 0), nil),
		"without END":          packetOf(append(discover, class...), nil),
		"with padding only":    packetOf(append(append([]byte{0, 0, 53, 1, 1, 0}, class...), 0, 0, 0), nil),
		"cut off in an option": packetOf(append(append(discover, class...), 93, 2, 0), nil),
		"cut off at a length":  packetOf(append(append(discover, class...), 93), nil),
		"garbage after END":    packetOf(append(append(discover, class...), 255, 60, 1, 'x'), nil),
		"option in file":       packetOf([]byte{53, 1, 1, 52, 1, 1, 255}, func(p []byte) { copy(p[fileField:], append(class, 255)) }),
		"option in sname":      packetOf([]byte{53, 1, 1, 52, 1, 2, 255}, func(p []byte) { copy(p[snameField:], append(class, 255)) }),
		"an option in two": packetOf([]byte{53, 1, 1, 52, 1, 3, 255}, func(p []byte) { // RFC 3396: file, then sname
			copy(p[fileField:], append([]byte{60, 3}, "PXE"...))
			copy(p[snameField:], append([]byte{60, 6}, "Client"...))
		}),
	} {
		p, err := Decode(packet)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.MessageType() != dhcpv4.MessageTypeDiscover || p.ClassIdentifier() != "PXEClient" || p.BootFileName != "" || p.ServerHostName != "" {
			t.Errorf("%s: %s", name, p.Summary())
		}
	}
	for name, packet := range map[string][]byte{
		"nothing": nil, "short": make([]byte, 239),
		"BOOTP without the cookie": packetOf(discover, func(p []byte) { p[cookieField] = 0 }),
	} {
		if p, err := Decode(packet); err == nil {
			t.Errorf("%s is taken for a DHCP packet: %s", name, p.Summary())
		}
	}
}

func TestDecodeReadsAsTheLibraryDoes(t *testing.T) {
	names, _ := filepath.Glob("testdata/*.bin")
	if len(names) < 4 {
		t.Fatalf("recorded packets: %v", names)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := dhcpv4.FromBytes(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Decode(data)
		if err != nil || !bytes.Equal(got.ToBytes(), want.ToBytes()) {
			t.Errorf("%s: %v\n got %v\nwant %v", name, err, got, want)
		}
	}
}

// FuzzDecode: anything is a packet or an error, and what is a packet can be
// decided about.
func FuzzDecode(f *testing.F) {
	names, _ := filepath.Glob("testdata/*.bin")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(packetOf([]byte{53, 1, 1, 52, 1, 3}, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		p, err := Decode(data)
		if !bytes.Equal(before, data) {
			t.Fatal("the packet was changed")
		}
		if err != nil {
			return
		}
		if _, err := Decode(p.ToBytes()); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
