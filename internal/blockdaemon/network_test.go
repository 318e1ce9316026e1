package blockdaemon

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"text/template"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/runes"
)

// firewalld is told of the ports in a file, because nobody else may open them.
func TestFirewalldKnowsThePorts(t *testing.T) {
	text, err := os.ReadFile("../../overlay/runes/firewalld/files/etc/firewalld/policies/viver.xml.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := template.New("").Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []bool{false, true} {
		var b bytes.Buffer
		if err := policy.Execute(&b, runes.Facts{Address: "10.77.0.5", PrefixLength: 16, FirstNode: first}); err != nil {
			t.Fatal(err)
		}
		n := node{boot: &control.Boot{First: first}, network: bootnet.Network{Lease: bootnet.Lease{Address: netip.MustParsePrefix("10.77.0.5/16")}}}
		ports := n.openPorts()
		for protocol, list := range map[string][]uint16{"tcp": ports.TCP, "udp": ports.UDP} {
			for _, port := range list {
				if !strings.Contains(b.String(), fmt.Sprintf(`<port port="%d" protocol="%s"/>`, port, protocol)) {
					t.Errorf("first %v: %s port %d is missing in\n%s", first, protocol, port, &b)
				}
			}
		}
		if n := strings.Count(b.String(), "<port "); n != len(ports.TCP)+len(ports.UDP) {
			t.Errorf("first %v: %d ports are open, want %d", first, n, len(ports.TCP)+len(ports.UDP))
		}
	}
}
