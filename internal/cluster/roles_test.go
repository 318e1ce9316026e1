package cluster

import (
	"reflect"
	"slices"
	"testing"

	"viver.lan/internal/identity"
	"viver.lan/internal/roles"
)

// What a member can do and which roles it holds reaches the others; saying it again
// costs nothing.
func TestRolesReachTheMembers(t *testing.T) {
	first, _ := start(t, config(t, 21))
	cfg := config(t, 22, first.Addr())
	cfg.Meta.Memory, cfg.Meta.CPUs, cfg.Meta.Features = 8<<30, 4, []string{roles.KVM}
	second, _ := start(t, cfg)
	waitFor(t, first, "the second is there", func(m map[identity.ID]Member) bool {
		meta := m[second.id()].Meta
		return meta.Memory == 8<<30 && meta.CPUs == 4 && slices.Equal(meta.Features, cfg.Meta.Features) && !meta.TakesRoles
	})
	held := []roles.Name{{Rune: "compile", Role: "scheduler"}}
	hold := func() {
		t.Helper()
		if err := second.UpdateMeta(t.Context(), func(m *Meta) { m.TakesRoles, m.Claims = true, slices.Clone(held) }); err != nil {
			t.Fatal(err)
		}
	}
	hold()
	waitFor(t, first, "its role is known", func(m map[identity.ID]Member) bool { return reflect.DeepEqual(m[second.id()].Meta.Claims, held) })
	sequence := func() uint64 {
		second.mu.Lock()
		defer second.mu.Unlock()
		return second.sequence
	}
	again := func() {
		t.Helper()
		before := sequence()
		hold()
		if after := sequence(); after != before {
			t.Errorf("the same facts are told again, as number %d after %d", after, before)
		}
	}
	again()
	held = []roles.Name{}
	hold()
	waitFor(t, first, "it has given its role back", func(m map[identity.ID]Member) bool { return m[second.id()].Meta.Claims == nil })
	again()
	if err := second.UpdateMeta(t.Context(), func(m *Meta) { m.Claims = make([]roles.Name, 1) }); err == nil {
		t.Error("a role without a name is told")
	}
}
