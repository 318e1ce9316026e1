package control

import (
	"context"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/manifest"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

func TestSetRoles(t *testing.T) {
	path, d := filepath.Join(t.TempDir(), "s"), newFakeDaemon()
	defer serveDaemon(t, path, d)()
	held := []roles.Name{{Rune: "compile", Role: "scheduler"}, {Rune: "nfs", Role: "server"}}
	c := NewClient(path)
	for _, list := range [][]roles.Name{held, nil} {
		if err := c.SetRoles(t.Context(), list); err != nil || !slices.Equal(d.roles, list) || d.roles == nil {
			t.Errorf("%v: the daemon has %v, %v", list, d.roles, err)
		}
	}
	d.roles = held
	for _, wrong := range [][]roles.Name{
		{held[1], held[0]}, {held[0], held[0]}, {{}}, {{Rune: "a", Role: "b c"}},
		slices.Repeat(held, 8), {{Rune: "a", Role: strings.Repeat("x", maxRoles)}},
	} {
		if err := c.SetRoles(t.Context(), wrong); err == nil || !slices.Equal(d.roles, held) {
			t.Errorf("%v: %v, and the daemon has %v", wrong, err, d.roles)
		}
	}
}

// TestOnlyRootSetsRoles: the agent may use the socket, too.
func TestOnlyRootSetsRoles(t *testing.T) {
	for who, ctx := range map[string]context.Context{
		"the agent": context.WithValue(t.Context(), callerKey{}, uint32(AgentID)), "somebody unknown": t.Context(),
	} {
		d, answer := newFakeDaemon(), httptest.NewRecorder()
		r := httptest.NewRequestWithContext(ctx, "POST", "/roles", strings.NewReader(`["a/b"]`))
		handler(d).ServeHTTP(answer, r)
		if answer.Code != 403 || d.roles != nil {
			t.Errorf("%s: answer %d, and the daemon has %v", who, answer.Code, d.roles)
		}
	}
}

func TestRoleNodes(t *testing.T) {
	image := manifest.Infohash{1}
	member := func(name string, edit func(*Member)) Member {
		m := Member{ID: identitytest.Named(name), Hostname: name, State: Alive, Image: image, TakesRoles: true}
		edit(&m)
		return m
	}
	s := Status{ID: identitytest.Named("self"), Infohash: image, Members: []Member{
		member("self", func(m *Member) { m.TakesRoles = false }),
		member("ours", func(m *Member) { m.Labels, m.CPUs, m.Roles = []string{"web"}, 4, []roles.Name{{Rune: "a", Role: "b"}} }),
		member("dead", func(m *Member) { m.State = Dead }),
		member("disputed", func(m *Member) { m.NameState = Disputed }),
		member("foreign", func(m *Member) { m.Image = manifest.Infohash{2} }),
		member("booting", func(m *Member) { m.TakesRoles = false }),
	}}
	nodes := s.RoleNodes()
	if len(nodes) != 2 || nodes[0].Hostname != "self" || nodes[1].Hostname != "ours" || nodes[1].CPUs != 4 || len(nodes[1].Claims) != 1 || len(nodes[1].Labels) != 1 {
		t.Errorf("%+v", nodes)
	}
}

func TestPins(t *testing.T) {
	mac := ether.MAC{2, 5: 1}
	s := Status{Overrides: []operator.Override{
		{Key: operator.PinOf("a/b"), Value: mac.String()}, {Key: operator.PinOf("a"), Value: mac.String()}, {Key: operator.PinOf("a/c"), Value: "x"},
	}}
	pins, wrong := s.Pins()
	if len(pins) != 1 || !slices.Equal(pins[roles.Name{Rune: "a", Role: "b"}].On, []ether.MAC{mac}) || len(wrong) != 2 {
		t.Errorf("%v, %v", pins, wrong)
	}
}

// machine is a daemon whose machine can be switched off.
type machine struct {
	*fakeDaemon
	off bool
}

func (m *machine) AnnounceOff(context.Context) error { m.off = true; return nil }

func TestAnnounceOff(t *testing.T) {
	path, m := filepath.Join(t.TempDir(), "s"), &machine{fakeDaemon: newFakeDaemon()}
	stranger := httptest.NewRecorder()
	handler(m).ServeHTTP(stranger, httptest.NewRequestWithContext(t.Context(), "POST", "/off", nil))
	if stranger.Code != 403 || m.off {
		t.Errorf("somebody unknown gets %d", stranger.Code)
	}
	defer serveDaemon(t, path, m)()
	if err := NewClient(path).AnnounceOff(t.Context()); err != nil || !m.off {
		t.Errorf("%v", err)
	}
}
