package runes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Description is what a rune says of itself.
type Description struct {
	Name        string      `json:"name"`
	Description string      `json:"description"`
	Order       int         `json:"order"`
	When        string      `json:"when,omitempty"` // in words
	Requires    []string    `json:"requires,omitempty"`
	Files       []FileWords `json:"files,omitempty"`
	Hooks       []Moment    `json:"hooks,omitempty"`
	// Roles and Services are in words.
	Roles    []string          `json:"roles,omitempty"`
	Services []string          `json:"services,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
	// Users and Groups are names with their numbers.
	Users  []string `json:"users,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// FileWords is what a rune says of a file.
type FileWords struct {
	Path     string `json:"path"`
	Mode     string `json:"mode,omitempty"`
	Link     string `json:"link,omitempty"`
	Template bool   `json:"template,omitempty"`
	Live     bool   `json:"live,omitempty"`
	// Roles are those for which it is laid; none for every machine.
	Roles []string `json:"roles,omitempty"`
	When  string   `json:"when,omitempty"`
}

// Describe returns what the bundle says of itself.
func (b Bundle) Describe() Description {
	d := Description{Name: b.Name, Description: b.Description, Order: b.Order, When: b.when.words(), Requires: b.requires.words(),
		Hooks: slices.Sorted(maps.Keys(b.hooks)), Settings: b.settings}
	for _, o := range b.offers {
		words := o.Name.Role + ", wanted on " + o.Count.String()
		for _, need := range o.Needs {
			words += "; needs " + need.String()
		}
		if o.Bound != "" {
			words += "; bound to " + o.Bound
		}
		d.Roles = append(d.Roles, words)
	}
	for _, u := range b.accounts.Users {
		d.Users = append(d.Users, fmt.Sprintf("%s (%d)", u.Name, u.UID))
	}
	for _, g := range b.accounts.Groups {
		d.Groups = append(d.Groups, fmt.Sprintf("%s (%d)", g.Name, g.GID))
	}
	for _, svc := range b.services {
		words := svc.name + ": " + strings.Join(svc.source, " ")
		if svc.role != "" {
			words = svc.name + ", for the role " + svc.role + ": " + strings.Join(svc.source, " ")
		}
		d.Services = append(d.Services, words)
	}
	for _, it := range b.items {
		f := FileWords{Path: it.path, Link: it.link, Template: it.tmpl != nil, Live: it.live, Roles: it.roles, When: it.when.words()}
		if it.link == "" {
			f.Mode = fmt.Sprintf("%o", it.mode)
		}
		d.Files = append(d.Files, f)
	}
	return d
}

// words says what must hold.
func (c Conditions) words() string {
	var parts []string
	for _, x := range []struct {
		list        []string
		before, and string
	}{
		{c.Exists, "the image has ", " and "}, {c.Any, "the image has ", " or "}, {c.Missing, "the image lacks ", " and "},
		{c.Plain, "no link is ", " and "}, {c.Facts, "known are ", " and "}, {c.Init, "process 1 is ", " or "},
	} {
		if len(x.list) > 0 {
			parts = append(parts, x.before+strings.Join(x.list, x.and))
		}
	}
	return strings.Join(parts, "; ")
}

func (r Requires) words() []string {
	var list []string
	if len(r.Distribution) > 0 {
		list = append(list, "the distribution "+strings.Join(r.Distribution, " or "))
	}
	for _, p := range slices.Sorted(maps.Keys(r.Programs)) {
		list = append(list, p+" (package "+r.Programs[p]+")")
	}
	for _, m := range slices.Sorted(maps.Keys(r.Modules)) {
		list = append(list, "the kernel module "+m+" (package "+r.Modules[m]+")")
	}
	return list
}
