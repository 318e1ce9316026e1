package runes

import (
	"strings"
	"testing"
	"testing/fstest"

	"viver.lan/internal/roles"
)

const liveRune = `name = "a"
[settings]
port = "TCP port, default 80"
[[role]]
name  = "server"
wants = "one"
needs = ["cpus >= 2"]
[[role]]
name  = "keeper"
wants = "1"
bound = "saved-data"
[[service]]
name  = "web"
role  = "server"
start = ["/bin/web", "{{ setting ` + "`port` `80`" + ` }}", "{{ .Address }}"]
stop  = "SIGINT"
user  = "www-data"
[[file]]
path  = "/run/a.conf"
roles = ["server"]
live  = true
`

func TestLoadLiveRune(t *testing.T) {
	b := one(t, bundle(liveRune, "files/run/a.conf.tmpl", "x"))[0]
	offers := b.Offers()
	if len(offers) != 2 || offers[0].Name != (roles.Name{Rune: "a", Role: "server"}) || offers[1].Bound != "saved-data" || !b.Lives() {
		t.Errorf("%+v", offers)
	}
	if one(t, bundle(`name = "a"`, "hooks/root", "#!/bin/sh"))[0].Lives() {
		t.Error("a rune that is done before init starts is taken for a live one")
	}
	for _, moment := range Moments()[1:] {
		if !one(t, bundle(`name = "a"`, "hooks/"+string(moment), "#!/bin/sh"))[0].Lives() {
			t.Errorf("hook %s: not taken for a live rune", moment)
		}
	}
}

func TestLoadSaysWhatIsWrongWithLiveParts(t *testing.T) {
	const role = "name = \"a\"\n[[role]]\nname = \"r\"\nwants = \"one\"\n"
	service := func(rest string) string { return role + "[[service]]\nname = \"s\"\n" + rest }
	for manifest, want := range map[string]string{
		"name = \"a\"\n[[role]]\nname = \"R\"\nwants = \"one\"":                        "small letters",
		"name = \"a\"\n[[role]]\nname = \"r\"\nwants = \"three\"":                      `rune.toml:4: role[0].wants: "three"`,
		"name = \"a\"\n[[role]]\nname = \"r\"\nwants = \"one\"\nneeds = [\"wings\"]":   `rune.toml:5: role[0].needs: `,
		"name = \"a\"\n[[role]]\nname = \"r\"\nwants = \"one\"\nbound = \"my disk\"":   `rune.toml:5: role[0].bound: `,
		"name = \"a\"\n[[role]]\nname = \"r\"\nwants = 1":                              "rune.toml:4: ",
		role + "[[role]]\nname = \"r\"\nwants = \"all\"":                               `rune.toml:6: role[1].name: role "r" is there twice`,
		role + "[[file]]\npath = \"/run/x\"\nroles = [\"q\"]":                          `rune.toml:7: file[0].roles: "q": this rune has no such`,
		role + "[[file]]\npath = \"/run/x\"\nlive = true":                              "only a template",
		role + "[[file]]\npath = \"/run/{{.Interface}}\"\nlive = true":                 "a path that is a template itself",
		service("start = [\"web\"]"):                                                   "want a program's path",
		service("start = []"):                                                          "want a program's path",
		service("start = [\"/bin/web\", \"{{ .Address\"]"):                             "rune.toml:7: service[0].start: argument:1: unclosed action",
		service("role = \"q\"\nstart = [\"/bin/web\"]"):                                `rune.toml:7: service[0].role: "q": this rune has no such`,
		service("stop = \"SIGSEGV\"\nstart = [\"/bin/web\"]"):                          `rune.toml:7: service[0].stop: "SIGSEGV"`,
		service("user = \"Mr X\"\nstart = [\"/bin/web\"]"):                             `rune.toml:7: service[0].user: "Mr X"`,
		service("when = { init = [\"launchd\"] }\nstart = [\"/bin/web\"]"):             `no init "launchd"; there are systemd, sysvinit`,
		service("start = [\"/b\"]\n[[service]]\nname = \"s\"\nstart = [\"/bin/web\"]"): `rune.toml:9: service[1].name: "s" is there twice`,
		"name = \"a\"\n[settings]\nPort = \"\"":                                        `rune.toml:3: settings.Port: want`,
	} {
		fsys := bundle(manifest, "files/run/x", "", "files/run/{{.Interface}}.tmpl", "")
		if bundles, errs := Load(fsys); len(errs) != 1 || !strings.Contains(errs[0].Error(), want) || len(bundles) != 0 {
			t.Errorf("%s\n%v, want %q", manifest, errs, want)
		}
	}
}

func TestConfigure(t *testing.T) {
	bundles := one(t, bundle(liveRune, "files/run/a.conf.tmpl", "x", "files/etc/a.tmpl", "port {{ setting `port` `80` }}\n"))
	where := image(t, nil)
	apply(t, where, bundles, testFacts())
	if got := read(t, where, "/etc/a"); got != "port 80\n" {
		t.Errorf("%q without a setting", got)
	}
	configured, err := Configure(bundles, map[string]map[string]string{"a": {"port": "8080", "prot": "1"}, "b": {"x": ""}})
	if err == nil || !strings.Contains(err.Error(), "rune.a.prot: the rune has no such setting; it has port") || !strings.Contains(err.Error(), "rune.b: there is no rune of that name; there are a") {
		t.Error(err)
	}
	apply(t, where, configured, testFacts())
	if got := read(t, where, "/etc/a"); got != "port 8080\n" {
		t.Errorf("%q with a setting", got)
	}
	if env := strings.Join(configured[0].environment(testFacts()), "\n"); !strings.Contains(env, "\nVIVER_SETTING_PORT=8080\n") {
		t.Error(env)
	}
	wrong := apply(t, where, one(t, bundle(`name = "a"`, "files/etc/b.tmpl", "{{ setting `x` `` }}")), testFacts())["a"]
	if wrong.Outcome != Degraded || !strings.Contains(wrong.Reason, `setting "x": the rune has no settings`) {
		t.Errorf("%+v", wrong)
	}
}

// A file of a role is not there before somebody holds the role, whatever an earlier
// boot left in saved data.
func TestRoleFilesAreNotThereAtFirst(t *testing.T) {
	where := image(t, map[string]string{"etc/exports": "all of it"})
	bundles := one(t, bundle("name = \"a\"\n[[role]]\nname = \"r\"\nwants = \"one\"\n[[file]]\npath = \"/etc/exports\"\nroles = [\"r\"]", "files/etc/exports", ""))
	if r := apply(t, where, bundles, testFacts())["a"]; r.Outcome != Applied || len(r.Files) != 0 || read(t, where, "/etc/exports") != "" {
		t.Errorf("%+v", r)
	}
}

func TestMembersInTemplates(t *testing.T) {
	facts := testFacts()
	facts.Roles = []string{"a/server"}
	facts.Members = []MemberFact{
		{Hostname: "n1", Address: "10.77.0.1", CPUs: 2, Memory: 512, Roles: []string{"a/server"}},
		{Hostname: "n2", Address: "10.77.0.2", Roles: []string{"a/server", "b/x"}},
		{Hostname: "n3\nevil", Address: "10.77.0.3"},
		{Hostname: "n4", Address: "everywhere"},
		{Hostname: "n5", Address: "10.77.0.5", Roles: []string{"a/../x y"}},
	}
	for source, want := range map[string]string{
		"{{ range .Members }}{{ .Address }} {{ .Hostname }} {{ .CPUs }}\n{{ end }}":             "10.77.0.1 n1 2\n10.77.0.2 n2 0\n",
		"{{ range holders `server` }}{{ .Address }} {{ end }}":                                  "10.77.0.1 10.77.0.2 ",
		"{{ with holder `b/x` }}{{ .Hostname }}{{ end }}{{ with holder `b/y` }}never{{ end }}.": "n2.",
		"{{ if holds `server` }}yes{{ end }}{{ if holds `b/x` }}no{{ end }}":                    "yes",
	} {
		where := image(t, nil)
		apply(t, where, one(t, fstest.MapFS{
			"a/rune.toml":    {Data: []byte(`name = "a"`)},
			"a/files/x.tmpl": {Data: []byte(source)},
		}), facts)
		if got := read(t, where, "/x"); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}
