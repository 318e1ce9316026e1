// Package runes lays role bundles over the root of a node before its own init
// starts.
//
// A rune is a folder: rune.toml says what it is and when it is wanted, files/
// holds what is laid over the root under the same paths, names ending in
// ".tmpl" are rendered with the machine's Facts first, and hooks/ holds
// programs that run inside the root at a named Moment. Bundles come from the
// initramfs, from the medium and, as a tar, from the boot host; the later one
// of a name replaces the earlier. docs/runes.md teaches how to write one.
//
// It is not a configuration manager: what a rune laid into saved data on an
// earlier boot stays there unless the rune says otherwise, so a rune lays what
// must not last under /run and renders what must converge from the text that
// exists. It knows no role by name either; every role is a folder.
//
// The invariant: nothing is written outside the root and its /run, whatever
// symbolic links the root holds, and a rune that fails leaves all others
// untouched.
//
// # rune.toml
//
//	version     = 1                        of this layout; 1 if absent
//	name        = "x11"                    must be the folder's name
//	description = "one line for people"
//	order       = 50                       0 to 99, lower goes first; 50 if absent
//	executable  = ["/usr/local/bin/tool"]  laid with mode 755 (FAT keeps no modes)
//	symlinks    = { "/etc/a" = "../b" }    laid as they stand (FAT keeps no links)
//	when        = { exists = ["/usr/bin/Xorg"] }
//
//	[[file]]                               more about one laid path
//	path  = "/root/.ssh/authorized_keys"
//	mode  = "600"
//	when  = { facts = ["AuthorizedKeys"] }
//	live  = true                           rendered again whenever a fact changes
//	roles = ["scheduler"]                  there exactly while the node holds one of them
//
//	[[role]]                               given to nodes of the network (package roles)
//	name  = "scheduler"
//	wants = "one"
//	needs = ["cpus >= 2"]
//	bound = "saved-data"
//
//	[[service]]                            kept running; its arguments are templates
//	name  = "scheduler"
//	role  = "scheduler"                    on the nodes that hold it; absent: on every node
//	start = ["/usr/sbin/icecc-scheduler", "-p", "8765"]
//	stop  = "SIGTERM"
//	user  = "icecc"
//	when  = { exists = ["/usr/sbin/icecc-scheduler"] }
//
//	[requires]                             or the rune is skipped, with the package's name
//	programs     = { "/usr/sbin/icecc-scheduler" = "icecc" }
//	modules      = { nfsd = "linux-image-amd64" }
//	distribution = ["debian"]
//
//	[settings]                             what viver.toml may set in [rune.NAME]
//	port = "TCP port, default 8765"
//
// # Conditions
//
// All of them must hold. Paths are looked up in the root, links followed as
// they will be once it is the root.
//
//	exists   every one of these paths exists
//	any      at least one of these paths exists
//	missing  none of these paths exists
//	plain    none of these paths is a symbolic link
//	facts    every one of these Facts is known (not empty, not false)
//	init     process 1 is going to be one of these (package initsystem)
//
// # Templates
//
// text/template with Facts as its data; a name that Facts does not have is an
// error. Beside the built-in functions:
//
//	existing               what the file holds now, "" when there is none
//	exists PATH            whether the path exists in the root
//	match RE TEXT          whether RE matches anywhere; ^ and $ are line ends
//	without RE TEXT        TEXT without the lines that RE matches
//	replace RE NEW TEXT    TEXT with every match replaced; $1 is a group
//	join SEP LIST          the list as one string
//	setting KEY DEFAULT    what viver.toml sets for the rune, else the default
//	holders ROLE           the members that hold a role, own ones without the rune's name
//	holder ROLE            the first of them; "with" skips its block where there is none
//	holds ROLE             whether this machine holds it
//
// The path of a template may hold {{…}} too: "ifstate.{{.Interface}}.tmpl".
// A template that renders to nothing where there is no file lays none. A file
// that already holds the result, in the right mode, is not written.
package runes

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"viver.lan/internal/roles"
)

// Moment names a point of the boot at which hooks run.
type Moment string

// The moments. At root, the root is assembled and the rune's files are laid, before the
// distribution's init starts; /dev, /proc, /sys and /run are there. All others are of
// the running system.
const (
	MomentRoot       Moment = "root"
	MomentBooted     Moment = "booted"          // the machine is up, and knows the members of its network
	MomentRoleGained Moment = "role-gained"     // the node holds a role of the rune
	MomentRoleLost   Moment = "role-lost"       // it holds it no more
	MomentMembers    Moment = "members-changed" // somebody came, left or changed
	MomentShutdown   Moment = "shutdown"        // the machine is about to be off
)

// Moments returns all of them, in the order of a machine's life.
func Moments() []Moment {
	return []Moment{MomentRoot, MomentBooted, MomentRoleGained, MomentRoleLost, MomentMembers, MomentShutdown}
}

func momentNames() string {
	var list []string
	for _, m := range Moments() {
		list = append(list, string(m))
	}
	return strings.Join(list, ", ")
}

// Bundle is one rune, read and checked, whole in memory.
type Bundle struct {
	Name        string
	Description string
	Order       int

	when     Conditions
	requires Requires
	items    []item                 // sorted by path
	dirModes map[string]fs.FileMode // directories that want a mode of their own
	hooks    map[Moment]hookProgram // at most one program per moment
	offers   []roles.Offer
	services []service
	settings map[string]string // that it has: what each is, for people
	values   map[string]string // that the network's viver.toml gives them
	tree     map[string]node   // what it was read from
}

// Paths returns the paths that the bundle may lay, in order. Conditions may
// leave some of them out on a given machine.
func (b Bundle) Paths() []string {
	paths := make([]string, len(b.items))
	for i, it := range b.items {
		paths[i] = it.path
	}
	return paths
}

// Merge joins lists of bundles into one in order of application, by Order and
// then Name. A bundle of a later list replaces the one of the same name of an
// earlier list, so the medium's runes win over the built-in ones.
func Merge(lists ...[]Bundle) []Bundle {
	byName := make(map[string]Bundle)
	for _, list := range lists {
		for _, b := range list {
			byName[b.Name] = b
		}
	}
	merged := make([]Bundle, 0, len(byName))
	for _, b := range byName {
		merged = append(merged, b)
	}
	slices.SortFunc(merged, func(a, b Bundle) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
	})
	return merged
}

// Without returns the bundles whose names are not in off. A name that no
// bundle has is an error in a sentence that lists the ones there are; the
// returned bundles are usable all the same.
func Without(bundles []Bundle, off []string) ([]Bundle, error) {
	var errs []error
	for _, name := range off {
		if !slices.ContainsFunc(bundles, func(b Bundle) bool { return b.Name == name }) {
			errs = append(errs, fmt.Errorf("rune %q is to be off, but there is none of that name; there are %s", name, names(bundles)))
		}
	}
	kept := slices.DeleteFunc(slices.Clone(bundles), func(b Bundle) bool { return slices.Contains(off, b.Name) })
	return kept, errors.Join(errs...)
}

func names(bundles []Bundle) string {
	list := make([]string, len(bundles))
	for i, b := range bundles {
		list[i] = b.Name
	}
	return strings.Join(list, ", ")
}
