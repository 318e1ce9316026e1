package runner

import (
	"cmp"
	"slices"

	"viver.lan/internal/runes"
)

// actionKind says what is to be done.
type actionKind int

// The kinds of actions, in the order in which they are carried out: what ends does so
// before what begins; a role's hook finds its files and comes before its services.
const (
	stopService actionKind = iota
	loseRole               // hook role-lost
	removeFile
	layFile
	arm      // hook shutdown, for later
	boot     // hook booted
	gainRole // hook role-gained
	startService
	tellMembers // hook members-changed
)

// action is one thing to do for a rune.
type action struct {
	kind    actionKind
	path    string       // of a file
	role    string       // of a hook, or that a service runs for
	service ServiceState // of a service
}

// aim is what one rune is to be on this machine now.
type aim struct {
	wanted runes.Wanted
	roles  []string // of the rune that this machine is to hold
	// members is what the hook members-changed is about: it runs when that is another.
	members string
	// up says that the machine's boot is over: hooks and services wait for it.
	up bool
}

// plan says what is to be done so that a rune that is as have says becomes as the aim
// says. Parts that could not be worked out stay as they are. It is pure: who carries the
// actions out changes have accordingly, and plans again when something failed.
func plan(have RuneState, want aim, conditions map[string]condition) []action {
	var all []action
	for _, s := range have.Services {
		i := slices.IndexFunc(want.wanted.Services, func(w runes.Service) bool { return w.Name == s.Name })
		if i < 0 || want.wanted.Services[i].Err == nil && !s.same(stateOf(have.Name, want.wanted.Services[i])) {
			all = append(all, action{kind: stopService, service: s})
		}
	}
	for _, role := range have.Roles {
		if !slices.Contains(want.roles, role) {
			all = append(all, action{kind: loseRole, role: role})
		}
	}
	for _, path := range have.Files {
		if !slices.ContainsFunc(want.wanted.Files, func(f runes.File) bool { return f.Path == path }) {
			all = append(all, action{kind: removeFile, path: path})
		}
	}
	for _, f := range want.wanted.Files {
		if f.Err == nil && (!f.Current || f.Passing && !slices.Contains(have.Files, f.Path)) {
			all = append(all, action{kind: layFile, path: f.Path})
		}
	}
	if want.up {
		all = append(all, begin(have, want, conditions)...)
	}
	slices.SortStableFunc(all, func(a, b action) int { return cmp.Compare(a.kind, b.kind) })
	return all
}

// begin are the actions that need a machine that is up.
func begin(have RuneState, want aim, conditions map[string]condition) []action {
	var all []action
	if !have.Armed {
		all = append(all, action{kind: arm})
	}
	if !have.Booted {
		all = append(all, action{kind: boot})
	}
	for _, role := range want.roles {
		if !slices.Contains(have.Roles, role) {
			all = append(all, action{kind: gainRole, role: role})
		}
	}
	for _, s := range want.wanted.Services {
		if s.Err != nil {
			continue
		}
		wanted := stateOf(have.Name, s)
		running := slices.ContainsFunc(have.Services, func(h ServiceState) bool { return h.same(wanted) })
		if _, there := conditions[wanted.Unit]; !running || !there {
			all = append(all, action{kind: startService, service: wanted, role: s.Role})
		}
	}
	if have.Members != want.members {
		all = append(all, action{kind: tellMembers})
	}
	return all
}
