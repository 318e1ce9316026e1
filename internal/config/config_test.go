package config

import (
	"strings"
	"testing"

	"viver.lan/internal/cmdline"
)

const good = `# the medium's settings
[node]
prefix = "lab"

[network]
pool = "192.168.40.0/22"
dhcp = "external"
interface = "52:54:00:12:34:56"
router = "192.168.40.1"
dns = ["192.168.40.1", "9.9.9.9"]

[ssh]
authorized-keys = [
  "ssh-ed25519 AAAA a@b", # Ann
  "ssh-ed25519 BBBB c@d",
]

[console]
login = true
`

func TestTOML(t *testing.T) {
	c := New()
	c.AddTOML(Medium, []byte(good))
	if p := c.Problems(); len(p) != 0 {
		t.Fatalf("problems in a good file: %v", p)
	}
	s := c.Settings()
	if s.NodePrefix != "lab" || s.Pool.String() != "192.168.40.0/22" || s.DHCP != "external" || len(s.AuthorizedKeys) != 2 || !s.ConsoleLogin {
		t.Errorf("settings = %+v", s)
	}
	if s.Interface != "52:54:00:12:34:56" || s.Router.String() != "192.168.40.1" || len(s.DNS) != 2 {
		t.Errorf("network settings = %+v", s)
	}
	if !s.UseDisks || s.OverlayPercent != 50 {
		t.Errorf("defaults lost: %+v", s)
	}
}

func TestProblemsNameLineAndKeepDefaults(t *testing.T) {
	tests := []struct {
		name, in string
		line     int
		says     string
	}{
		{"unknown key", "\n[node]\nprefx = \"lab\"\n", 3, "node.prefx"},
		{"bad value", "[network]\n\npool = \"10.0.0.0/33\"\n", 3, "network.pool"},
		{"public range", "[network]\npool = \"8.8.0.0/16\"\n", 2, "private"},
		{"no card's name", "[network]\ninterface = \"eth0/1\"\n", 2, "network.interface"},
		{"too long for a card", "[network]\ninterface = \"enp3s0f1np1wireless\"\n", 2, "network.interface"},
		{"router by name", "[network]\nrouter = \"router.lan\"\n", 2, "no IPv4 address"},
		{"no machine's address", "[network]\nrouter = \"255.255.255.255\"\n", 2, "no IPv4 address"},
		{"IPv6 name server", "[network]\ndns = [\"2001:db8::1\"]\n", 2, "no IPv4 address"},
		{"four name servers", "[network]\ndns = [\"9.9.9.1\", \"9.9.9.2\", \"9.9.9.3\", \"9.9.9.4\"]\n", 2, "at most 3"},
		{"one name server as text", "[network]\ndns = \"9.9.9.9\"\n", 2, "list of strings"},
		{"wrong type", "[console]\nlogin = \"yes\"\n", 2, "console.login"},
		{"list of numbers", "[ssh]\nauthorized-keys = [1]\n", 2, "ssh.authorized-keys"},
		{"syntax", "[node]\nprefix = \n", 2, "not valid TOML"},
		{"not text", "\x00\x01\x02", 1, "not valid TOML"},
		{"script injection", "[boot]\nkernel-arguments = \"a\\nshell\"\n", 2, "boot script"},
		{"script syntax", "[boot]\nkernel-arguments = \"quiet a=$b\"\n", 2, "boot script"},
		{"quotes", "[boot]\nkernel-arguments = 'x=\"a b\"'\n", 2, "boot.kernel-arguments"},
		{"hostname", "[node]\nprefix = \"Über\"\n", 2, "hostname"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New()
			c.AddTOML(Medium, []byte(tt.in))
			if len(c.Problems()) != 1 {
				t.Fatalf("problems = %v, want one", c.Problems())
			}
			p := c.Problems()[0]
			if p.Line != tt.line || !strings.Contains(p.String(), tt.says) {
				t.Errorf("problem = %q, want line %d and %q", p, tt.line, tt.says)
			}
			for _, s := range c.List() {
				if s.Source != Default {
					t.Errorf("%s comes from %s", s.Name, s.Source)
				}
			}
		})
	}
}

func TestABadLineCostsOnlyItself(t *testing.T) {
	c := New()
	c.AddTOML(Medium, []byte("[node]\nprefx = 1\nprefix = \"lab\"\n"))
	if got := c.Settings().NodePrefix; got != "lab" {
		t.Errorf("prefix = %q, want the good line to hold", got)
	}
}

func TestSourcesWinInOrder(t *testing.T) {
	c := New()
	c.AddCommandLine(cmdline.Parse("viver.host=10.0.0.1 viver.console.login=0 overlay-size=70% nopersistence viver.runes.off=x11,ssh viver.network.interface=eth1 viver.network.dns=9.9.9.9,1.1.1.1"), "host")
	c.AddTOML(Network, []byte("[node]\nprefix = \"network\"\n"))
	c.AddTOML(Medium, []byte("[node]\nprefix = \"medium\"\n[console]\nlogin = true\n"))
	if p := c.Problems(); len(p) != 0 {
		t.Fatal(p)
	}
	s := c.Settings()
	if s.NodePrefix != "network" || s.ConsoleLogin || s.OverlayPercent != 70 || s.UseDisks || len(s.RunesOff) != 2 ||
		s.Interface != "eth1" || len(s.DNS) != 2 {
		t.Errorf("settings = %+v", s)
	}
	for _, l := range c.List() {
		if l.Name == "node.prefix" && l.Source != Network {
			t.Errorf("node.prefix comes from %s", l.Source)
		}
	}
}

func TestNonsenseOnTheCommandLine(t *testing.T) {
	c := New()
	c.AddCommandLine(cmdline.Parse(`viver. viver.= viver.node.prefix viver.overlay.size=999% viver.nope "`))
	if len(c.Problems()) != 5 {
		t.Errorf("problems = %v, want 5", c.Problems())
	}
	if s := c.Settings(); s.NodePrefix != "node" || s.OverlayPercent != 50 {
		t.Errorf("settings = %+v", s)
	}
}

func FuzzTOML(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("[[node]]\nprefix.a.b = {x=1}\n"))
	f.Add([]byte("a = [[\"x\"], 1979-05-27]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := New()
		c.AddTOML(Medium, data)
		if s := c.Settings(); !s.Pool.IsValid() || s.NodePrefix == "" {
			t.Fatalf("unusable settings: %+v", s)
		}
	})
}
