package bootnet

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"viver.lan/internal/ether"
)

func TestNetworkFile(t *testing.T) {
	n := Network{
		Card:   Card{Index: 3, Name: "eth0", MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}, Driver: "e1000e"},
		Lease:  Lease{Source: SourceSelf, Address: netip.MustParsePrefix("10.77.3.4/16"), Obtained: time.Second},
		Offers: []Offer{{Server: netip.MustParseAddr("10.0.0.1"), ServerMAC: ether.MAC{2}}, {Server: netip.MustParseAddr("10.77.0.9"), Viver: true}},
	}
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	read := func(text string) (Network, error) {
		path := filepath.Join(t.TempDir(), "network.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadNetwork(path)
	}
	back, err := read(string(text))
	if err != nil || !reflect.DeepEqual(back, n) {
		t.Errorf("came back as %+v, %v", back, err)
	}
	if f := n.Foreign(); len(f) != 1 || f[0].Server != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("foreign: %v", f)
	}
	for _, bad := range []string{"", "{}", `{"card":{"index":1,"mac":"52:54:00:12:34:56"}}`, "[1]", string(text[:len(text)/2])} {
		if _, err := read(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
