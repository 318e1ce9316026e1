package config

import (
	"strings"
	"testing"

	"viver.lan/internal/cmdline"
)

func TestSettingsOfRunes(t *testing.T) {
	c := New()
	c.AddTOML(Medium, []byte("[rune.compile]\ncache = \"1G\"\nport = 8765\n[rune.nfs]\nvolatile = \"true\"\n[rune]\nx = \"\"\n"))
	c.AddCommandLine(cmdline.Parse("viver.rune.compile.cache=2G viver.rune.time.servers=ntp.example"))
	c.AddTOML(Network, []byte("[rune.compile]\ncache = \"3G\"\n"))
	runes := c.Settings().Runes
	if len(runes) != 3 || runes["compile"]["cache"] != "2G" || runes["nfs"]["volatile"] != "true" || runes["time"]["servers"] != "ntp.example" || len(runes["compile"]) != 1 {
		t.Errorf("%v", runes)
	}
	p := c.Problems()
	if len(p) != 2 || p[0].Line != 3 || !strings.Contains(p[0].Text, "want a string in quotes, found 8765") || p[1].Name != "rune.x" {
		t.Errorf("%v", p)
	}
	list := c.List()
	if s := list[len(list)-1]; s.Name != "rune.time.servers" || s.Source != CommandLine || s.Value != "ntp.example" {
		t.Errorf("%+v", s)
	}
	if len(New().Settings().Runes) != 0 {
		t.Error("there are settings of runes by default")
	}
}

func TestSettingsOfRunesAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("[rune.a]\nlong = \"" + strings.Repeat("x", maxRuneValue+1) + "\"\n")
	for i := range maxRuneSettings + 50 {
		text.WriteString("k" + strings.Repeat("x", i) + " = \"\"\n")
	}
	c := New()
	c.AddTOML(Medium, []byte(text.String()))
	if n := len(c.Settings().Runes["a"]); n > maxRuneSettings+1 || len(c.Problems()) < 50 {
		t.Errorf("%d settings, %d problems", n, len(c.Problems()))
	}
}
