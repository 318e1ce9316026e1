package runner

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"viver.lan/internal/runes"
)

func (a action) String() string {
	kind := []string{"stop", "lose", "remove", "lay", "arm", "boot", "gain", "start", "members"}[a.kind]
	for _, about := range []string{a.path, a.service.Name, a.role} {
		if about != "" {
			return kind + " " + about
		}
	}
	return kind
}

func TestPlan(t *testing.T) {
	var failed = errors.New("template")
	svc := func(name, role string, args ...string) runes.Service {
		return runes.Service{Name: name, Role: role, Start: append([]string{"/bin/" + name}, args...)}
	}
	up := func(w runes.Wanted, roles ...string) aim {
		return aim{wanted: w, roles: roles, members: "m1", up: true}
	}
	files := func(list ...runes.File) runes.Wanted { return runes.Wanted{Files: list} }
	services := func(list ...runes.Service) runes.Wanted { return runes.Wanted{Services: list} }
	booted := RuneState{Name: "a", Armed: true, Booted: true, Members: "m1"}
	running := booted
	running.Services = []ServiceState{stateOf("a", svc("web", "server", "-x"))}
	running.Roles = []string{"server"}
	running.Files = []string{"/run/web.conf"}
	there := map[string]condition{"viver-a-web.service": {state: Running}}
	conf := runes.File{Path: "/run/web.conf", Current: true, Passing: true}

	for _, test := range []struct {
		name       string
		have       RuneState
		want       aim
		conditions map[string]condition
		actions    string
	}{
		{"first", RuneState{Name: "a"}, up(runes.Wanted{Files: []runes.File{{Path: "/run/x", Passing: true}}, Services: []runes.Service{svc("web", "server")}}, "server"), nil,
			"lay /run/x, arm, boot, gain server, start web, members"},
		{"before the machine is up", RuneState{Name: "a"}, aim{wanted: runes.Wanted{Files: []runes.File{{Path: "/run/x"}}, Services: []runes.Service{svc("web", "")}}, roles: []string{"server"}, members: "m1"}, nil,
			"lay /run/x"},
		{"nothing to do", running, up(runes.Wanted{Files: []runes.File{conf}, Services: []runes.Service{svc("web", "server", "-x")}}, "server"), there, ""},
		{"role lost", running, up(runes.Wanted{}), there, "stop web, lose server, remove /run/web.conf"},
		{"role lost while the machine is not known to be up", running, aim{members: "m1"}, there, "stop web, lose server, remove /run/web.conf"},
		{"another argument", running, up(runes.Wanted{Files: []runes.File{conf}, Services: []runes.Service{svc("web", "server", "-y")}}, "server"), there, "stop web, start web"},
		{"ended for good", running, up(runes.Wanted{Files: []runes.File{conf}, Services: []runes.Service{svc("web", "server", "-x")}}, "server"), nil, "start web"},
		{"another runner, or another rune of that name", RuneState{Name: "a", Booted: true, Members: "m1"}, up(runes.Wanted{}), nil, "arm"},
		{"members", booted, aim{members: "m2", up: true}, nil, "members"},
		{"a file of the distribution's that is right", booted, up(files(runes.File{Path: "/etc/hosts", Current: true})), nil, ""},
		{"one that is not", booted, up(files(runes.File{Path: "/etc/hosts"})), nil, "lay /etc/hosts"},
		{"a file that is right, of an earlier runner", booted, up(files(conf)), nil, "lay /run/web.conf"},
		{"a template that fails", running, up(runes.Wanted{Files: []runes.File{{Path: "/run/web.conf", Err: failed}}, Services: []runes.Service{{Name: "web", Role: "server", Err: failed}}}, "server"), there, ""},
		{"a service that is new and fails", booted, up(services(runes.Service{Name: "web", Err: failed})), nil, ""},
		{"skipped", running, aim{wanted: runes.Wanted{Skipped: "no such program"}}, there, "stop web, lose server, remove /run/web.conf"},
	} {
		var got []string
		for _, a := range plan(test.have, test.want, test.conditions) {
			got = append(got, fmt.Sprint(a))
		}
		if strings.Join(got, ", ") != test.actions {
			t.Errorf("%s: %s, want %s", test.name, strings.Join(got, ", "), test.actions)
		}
	}
}
