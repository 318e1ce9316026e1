package ether

import (
	"encoding/json"
	"maps"
	"testing"
)

func TestParseMAC(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"52:54:00:aa:bb:01", "52:54:00:aa:bb:01"},
		{"52:54:00:AA:BB:01", "52:54:00:aa:bb:01"},
		{"52-54-00-aa-bb-01", "52:54:00:aa:bb:01"},
		{"5254.00aa.bb01", "52:54:00:aa:bb:01"},
		{"", ""}, {"eth0", ""}, {"52:54:00:aa:bb", ""}, {"52:54:00:aa:bb:01 ", ""},
		{"02:00:5e:10:00:00:00:01", ""},                                     // EUI-64
		{"00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01", ""}, // InfiniBand
	} {
		m, err := ParseMAC(tt.text)
		if got := m.String(); err == nil && got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %s, %v", tt.text, got, err)
		}
	}
}

func TestNoneHasNoText(t *testing.T) {
	if got := (MAC{}).String(); got != "" {
		t.Errorf("no address is %q", got)
	}
}

func TestJSON(t *testing.T) {
	in := map[MAC]MAC{{1: 2}: {2: 3}, {}: {}}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"":"","00:02:00:00:00:00":"00:00:03:00:00:00"}` {
		t.Fatalf("%s, %v", text, err)
	}
	var out map[MAC]MAC
	if err := json.Unmarshal(text, &out); err != nil || !maps.Equal(out, in) {
		t.Errorf("%v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`"eth0"`), new(MAC)); err == nil {
		t.Error("a name is taken for an address")
	}
}
