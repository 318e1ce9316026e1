package hardware

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	a := ParseAliases(`# Aliases extracted from modules themselves.
alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias pci:v*d*sv*sd*bc03sc*i* anydisplay
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb-storage
alias usb:v13FEp3600d01[0-2]*dc*dsc*dp*ic*isc*ip*in* range
alias dmi*:svn*Acme*:pn*Box Two*: acme-wmi
alias fs-iso9660 isofs
alias iso9660 isofs
not an alias line
alias broken
`)
	for _, tt := range []struct {
		modalias string
		want     []string
	}{
		{"pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", []string{"e1000"}},
		{"pci:v00001AF4d00001050sv00001AF4sd00001100bc03sc80i00", []string{"virtio_pci", "anydisplay"}},
		{"pci:v00008086d0000100Fsv00001AF4sd00001100bc02sc00i00", nil},
		{"usb:v0781p5567d0100dc00dsc00dp00ic08isc06ip50in00", []string{"usb_storage"}},
		{"usb:v13FEp3600d0110dc00dsc00dp00ic03isc00ip00in00", []string{"range"}},
		{"usb:v13FEp3600d0130dc00dsc00dp00ic03isc00ip00in00", nil},
		{"dmi:bvnX:svnAcme Inc:pnBox Two B:rvn:", []string{"acme_wmi"}},
		{"iso9660", []string{"isofs"}},
		{"fs_iso9660", []string{"isofs"}},
		{"", nil},
	} {
		if got := a.Match(tt.modalias); !slices.Equal(got, tt.want) {
			t.Errorf("Match(%q) = %q, want %q", tt.modalias, got, tt.want)
		}
	}
}

func TestUnderscoresKeepsRanges(t *testing.T) {
	if got, want := underscores("platform:a-b[0-9]c-d["), "platform:a_b[0-9]c_d["; got != want {
		t.Errorf("underscores = %q, want %q", got, want)
	}
}

// regexpOf says in the regexp package's language what a shell pattern means.
func regexpOf(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	b.WriteString(`$`)
	return regexp.MustCompile(b.String())
}

// FuzzGlob judges the matcher by the regexp package, which shares no code with
// it. Brackets and backslashes are judged by modprobe, see tree_test.go.
func FuzzGlob(f *testing.F) {
	f.Add("pci:v*d*sv*sd*bc03sc*i*", "pci:v00001AF4d00001050sv00001AF4sd00001100bc03sc80i00")
	f.Add("a*b?c*", "aXXbYcZ")
	f.Add("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		ascii := func(r rune) bool { return r < 0x20 || r > 0x7e }
		if strings.ContainsFunc(pattern+s, ascii) || strings.ContainsAny(pattern, `[\`) || len(pattern)+len(s) > 200 {
			t.Skip("outside of what the oracle speaks")
		}
		if got, want := glob(pattern, s), regexpOf(pattern).MatchString(s); got != want {
			t.Errorf("glob(%q, %q) = %v, the regexp says %v", pattern, s, got, want)
		}
	})
}

// FuzzParse looks for text that crashes the parsers or makes the matcher hang.
func FuzzParse(f *testing.F) {
	f.Add("alias pci:v*[0-9 m\nalias \\ x\nalias [] y", "a.ko: b.ko\nb.ko: a.ko\n:", "softdep a pre: b post: a\nsoftdep", "pci:v[")
	f.Add("alias pci:v* m", "blacklist m\noptions m a=1 \\\n b=2\ninstall m /bin/false", "softdep x pre: m\nalias y m", "y")
	f.Add("alias [!a-] z\nalias [a\\]] y", "x.ko.xz:", "softdep x pre:", "]")
	f.Fuzz(func(t *testing.T, aliases, deps, soft, name string) {
		if len(aliases)+len(deps)+len(soft)+len(name) > 400 {
			t.Skip("asking for every module's order takes too long")
		}
		tree := &Tree{modules: parseDeps(deps), soft: parseSoftdeps(soft), aliases: ParseAliases(aliases), builtin: parseBuiltin(deps, soft), conf: newConf()}
		tree.parseConf(deps + soft)
		names, _ := tree.lookup(name)
		for m := range tree.modules {
			names = append(names, m)
		}
		for _, n := range names {
			order := tree.order(n)
			for i, x := range order {
				if slices.ContainsFunc(order[i+1:], func(y need) bool { return y.name == x.name }) {
					t.Fatalf("order(%q) holds %q twice", n, x.name)
				}
			}
		}
	})
}
