// Package config holds a node's settings and where each of them came from.
//
// Settings have dotted names. The same name works in viver.toml
// (`[network] pool = …`) and, with the prefix "viver.", on the kernel command
// line (`viver.network.pool=…`). Sources are laid over each other in the order
// defaults < medium < network < kernel command line. The invariant: whatever
// a source holds, the result is a usable Settings; what could not be used is
// reported by name and place and leaves the lower source's value.
package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"viver.lan/internal/cmdline"
	"viver.lan/internal/hostname"
)

// Settings are the values a boot works with.
type Settings struct {
	NodePrefix      string
	Pool            netip.Prefix
	DHCP            string
	Interface       string
	Router          netip.Addr
	DNS             []netip.Addr
	AuthorizedKeys  []string
	ConsoleLogin    bool
	UseDisks        bool
	FirewallOpen    bool
	OverlayPercent  int
	Memory          int
	KernelArguments string
	BootDefault     string
	BootTimeout     int
	RunesOff        []string
	// Runes are the settings of runes, by rune and key. What each means only the rune
	// knows, so any are taken here; package runes refuses those that it does not have.
	Runes map[string]map[string]string
}

// Source says who set a value. A greater source wins over a lesser one.
type Source int

// The sources, weakest first.
const (
	Default Source = iota
	Medium
	Network
	CommandLine
)

// String returns the source as people call it.
func (s Source) String() string { return sourceNames()[s] }

func sourceNames() []string {
	return []string{"default", "medium", "network", "kernel command line"}
}

// MarshalText implements encoding.TextMarshaler.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Source) UnmarshalText(text []byte) error {
	i := slices.Index(sourceNames(), string(text))
	if i < 0 {
		return fmt.Errorf("no source of settings is called %q", text)
	}
	*s = Source(i)
	return nil
}

// Setting is one named value as it stands, for printing.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source Source `json:"source"`
	Doc    string `json:"doc"`
}

// Problem is something a source said that could not be used.
type Problem struct {
	Source Source `json:"source"`
	Line   int    `json:"line,omitempty"` // 1-based line of the file, 0 where there are no lines
	Name   string `json:"name,omitempty"`
	Text   string `json:"text"`
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source.String())
	if p.Line > 0 {
		fmt.Fprintf(&b, ", line %d", p.Line)
	}
	if p.Name != "" {
		fmt.Fprintf(&b, ": %s", p.Name)
	}
	fmt.Fprintf(&b, ": %s", p.Text)
	return b.String()
}

// Config gathers settings from the sources, in whatever order a boot reaches
// them: a value never gives way to one from a lesser source.
type Config struct {
	settings Settings
	source   map[string]Source
	problems []Problem
}

// New returns a Config that holds the defaults.
func New() *Config {
	c := &Config{source: make(map[string]Source)}
	for _, k := range keys {
		if err := k.set(&c.settings, k.fallback); err != nil {
			panic(fmt.Sprintf("default of %s: %v", k.name, err)) // the table below is wrong
		}
		c.source[k.name] = Default
	}
	return c
}

// Settings returns a copy of the values gathered so far.
func (c *Config) Settings() Settings {
	s := c.settings
	s.AuthorizedKeys = slices.Clone(s.AuthorizedKeys)
	s.RunesOff = slices.Clone(s.RunesOff)
	s.DNS = slices.Clone(s.DNS)
	s.Runes = RuneSettings(c.List())
	return s
}

// Source says who set the setting of that name.
func (c *Config) Source(name string) Source { return c.source[name] }

// Problems returns what could not be used, in the order it was met.
func (c *Config) Problems() []Problem { return slices.Clone(c.problems) }

// List returns every setting with its value and source, in a fixed order.
func (c *Config) List() []Setting {
	list := make([]Setting, len(keys))
	for i, k := range keys {
		list[i] = Setting{Name: k.name, Value: k.get(&c.settings), Source: c.source[k.name], Doc: k.doc}
	}
	return append(list, c.runeSettings()...)
}

func (c *Config) apply(from Source, line int, name string, value any) {
	if strings.HasPrefix(name, runePrefix) {
		c.applyRune(from, line, name, value)
		return
	}
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		c.problem(from, line, name, "no such setting; the known ones are "+strings.Join(Names(), ", "))
		return
	}
	if from < c.source[name] {
		return
	}
	if err := keys[i].set(&c.settings, value); err != nil {
		c.problem(from, line, name, fmt.Sprintf("%v; %s stays %q", err, name, keys[i].get(&c.settings)))
		return
	}
	c.source[name] = from
}

func (c *Config) problem(from Source, line int, name, text string) {
	c.problems = append(c.problems, Problem{Source: from, Line: line, Name: name, Text: text})
}

// Names returns the names of all settings, in a fixed order.
func Names() []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}

// key is one row of the table of settings. set takes what a TOML file or a
// command line can hold: string, bool, int64 or []string.
type key struct {
	name     string
	doc      string
	fallback any
	set      func(*Settings, any) error
	get      func(*Settings) string
}

// keys is the one list of what can be set.
var keys = []key{
	text("node.prefix", "hostname of a node: this prefix, a dash and its MAC address", hostname.DefaultPrefix,
		func(s *Settings) *string { return &s.NodePrefix }, checkPrefix),
	{"network.pool", "addresses the first node gives out on a network with no DHCP server; unless set, another private range where this one is seen in use", "10.77.0.0/16", setPool,
		func(s *Settings) string { return s.Pool.String() }},
	text("network.dhcp", "auto: give out addresses where nobody else does, elsewhere add the boot program to the other server's answers; external: leave DHCP alone, the other server names the boot program too", "auto",
		func(s *Settings) *string { return &s.DHCP }, oneOf("auto", "external")),
	text("network.interface", "the network card to boot from and to serve, by its MAC address or the name it has before the distribution renames it (eth0); unless set, the one that the firmware booted from, or whose network answers", "",
		func(s *Settings) *string { return &s.Interface }, checkInterface),
	{"network.router", "default route of the machines on a network with no DHCP server; unless set, none", "", setRouter,
		func(s *Settings) string { return addresses(s.Router) }},
	{"network.dns", "name servers of the machines on a network with no DHCP server", []string(nil), setDNS,
		func(s *Settings) string { return addresses(s.DNS...) }},
	list("ssh.authorized-keys", "public keys that may log in as root",
		func(s *Settings) *[]string { return &s.AuthorizedKeys }),
	toggle("console.login", "a root shell on the console with no password", false,
		func(s *Settings) *bool { return &s.ConsoleLogin }),
	toggle("disks.use", "use a disk that carries a marker", true,
		func(s *Settings) *bool { return &s.UseDisks }),
	toggle("firewall.open", "keep VIVER's own ports open to the boot network, whatever firewall the distribution loads", true,
		func(s *Settings) *bool { return &s.FirewallOpen }),
	percent("overlay.size", "share of memory that written files may take", 50,
		func(s *Settings) *int { return &s.OverlayPercent }),
	percent("vfield.memory", "share of memory that pieces of the image may take; with less than the image needs, nodes share it out", 25,
		func(s *Settings) *int { return &s.Memory }),
	text("boot.kernel-arguments", "added to the kernel command line of network-booted nodes", "console=ttyS0,115200 console=tty0",
		func(s *Settings) *string { return &s.KernelArguments }, plainArguments),
	text("boot.default", "name of the image that a medium with several starts by itself, unless set the first; read when the medium is built", "",
		func(s *Settings) *string { return &s.BootDefault }, func(string) error { return nil }),
	number("boot.timeout", "seconds that the menu of a medium waits for a key, -1 for ever; read when the medium is built", 3, -1, 3600,
		func(s *Settings) *int { return &s.BootTimeout }),
	list("runes.off", "names of bundles that are not applied",
		func(s *Settings) *[]string { return &s.RunesOff }),
}

func text(name, doc, fallback string, at func(*Settings) *string, check func(string) error) key {
	return key{name, doc, fallback, func(s *Settings, v any) error {
		str, ok := v.(string)
		if !ok {
			return wrongType("a string", v)
		}
		if err := check(str); err != nil {
			return err
		}
		*at(s) = str
		return nil
	}, func(s *Settings) string { return *at(s) }}
}

func toggle(name, doc string, fallback bool, at func(*Settings) *bool) key {
	return key{name, doc, fallback, func(s *Settings, v any) error {
		on, ok := v.(bool)
		if !ok {
			return wrongType("true or false", v)
		}
		*at(s) = on
		return nil
	}, func(s *Settings) string { return strconv.FormatBool(*at(s)) }}
}

func percent(name, doc string, fallback int, at func(*Settings) *int) key {
	return key{name, doc, fmt.Sprintf("%d%%", fallback), func(s *Settings, v any) error {
		str, ok := v.(string)
		if !ok {
			return wrongType(`a share such as "50%"`, v)
		}
		digits, hasSign := strings.CutSuffix(str, "%")
		n, err := strconv.Atoi(digits)
		if err != nil || !hasSign || n < 1 || n > 90 {
			return fmt.Errorf("%q is no share of memory, want \"1%%\" to \"90%%\"", str)
		}
		*at(s) = n
		return nil
	}, func(s *Settings) string { return strconv.Itoa(*at(s)) + "%" }}
}

func number(name, doc string, fallback, least, most int64, at func(*Settings) *int) key {
	return key{name, doc, fallback, func(s *Settings, v any) error {
		n, ok := v.(int64)
		if !ok {
			return wrongType("a number", v)
		}
		if n < least || n > most {
			return fmt.Errorf("%d is out of range, want %d to %d", n, least, most)
		}
		*at(s) = int(n)
		return nil
	}, func(s *Settings) string { return strconv.Itoa(*at(s)) }}
}

func list(name, doc string, at func(*Settings) *[]string) key {
	return key{name, doc, []string(nil), func(s *Settings, v any) error {
		items, ok := v.([]string)
		if !ok {
			return wrongType("a list of strings", v)
		}
		*at(s) = items
		return nil
	}, func(s *Settings) string { return strings.Join(*at(s), ", ") }}
}

// checkPrefix keeps the hostnames that it begins valid.
func checkPrefix(s string) error {
	if s == "" || s != strings.ToLower(s) || hostname.Check(hostname.Default(s, "52:54:00:12:34:56")) != nil {
		return fmt.Errorf("%q cannot begin a hostname: use up to 50 of a-z, 0-9 and dashes", s)
	}
	return nil
}

// plainArguments takes kernel arguments that every boot loader passes on as
// they are.
func plainArguments(s string) error {
	for arg := range strings.SplitSeq(s, " ") {
		if !cmdline.Plain(arg) {
			return fmt.Errorf("%q holds a character that a boot script cannot carry: use letters, digits and _.,:=/@+%%-, with a space between arguments", arg)
		}
	}
	return nil
}

func oneOf(choices ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(choices, ", "))
		}
		return nil
	}
}

func wrongType(want string, found any) error {
	return fmt.Errorf("want %s, found %v", want, found)
}
