package cmdline

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want Line
	}{
		{"empty", "", nil},
		{"blanks", " \t\n ", nil},
		{"usual", "BOOT_IMAGE=/vmlinuz ro quiet\n", Line{{Name: "BOOT_IMAGE", Value: "/vmlinuz"}, {Name: "ro", Bare: true}, {Name: "quiet", Bare: true}}},
		{"quoted value", `a="b c" d`, Line{{Name: "a", Value: "b c"}, {Name: "d", Bare: true}}},
		{"quoted argument", `"a=b c" d`, Line{{Name: "a", Value: "b c"}, {Name: "d", Bare: true}}},
		{"lone quote", `"`, Line{{Name: "", Bare: true}}},
		{"open quote", `a="b c`, Line{{Name: "a", Value: "b c"}}},
		{"equals in value", "root=UUID=1", Line{{Name: "root", Value: "UUID=1"}}},
		{"no name", "=x", Line{{Name: "", Value: "x"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Parse(tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Parse(%q) = %#v, want %#v", tt.in, got, tt.want)
			}
		})
	}
}

func TestLastOneWins(t *testing.T) {
	line := Parse("viver.host=10.0.0.1 console=ttyS0 viver.host=10.0.0.2 console=tty0")
	if got := line.Value("viver.host"); got != "10.0.0.2" {
		t.Errorf("Value = %q, want the last one", got)
	}
	if got := line.All("console"); !reflect.DeepEqual(got, []string{"ttyS0", "tty0"}) {
		t.Errorf("All = %q", got)
	}
}

func TestBool(t *testing.T) {
	for text, want := range map[string][2]bool{"a": {true, true}, "a=0": {false, true}, "a=yes": {true, true}, "a=off": {false, true}, "a=maybe": {false, false}, "a=ON": {true, true}} {
		if on, ok := Parse(text)[0].Bool(); on != want[0] || ok != want[1] {
			t.Errorf("%s: %v and %v, want %v", text, on, ok, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", `"`, `a="`, `"a=b`, "=\x00=", "a=\"b\"c d", "viver.host=\xff\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range Parse(s) {
			_, _ = a.Bool()
		}
		_ = Parse(s).String()
	})
}
