// Package accounts merges one table of users and groups into the account files of a
// root: passwd(5), shadow(5), group(5) and gshadow(5). It is pure: text in, text out.
//
// Files instead of useradd(8), because the users have to be there before the first
// service starts, in an image of any distribution, and again in the running system.
//
// The invariants: merging twice changes nothing more; an account that the table does not
// name is left as it is, unless an earlier table made it, and then it is locked and never
// deleted; a conflict costs the entry that has it, and nothing else. A password in clear
// is never accepted.
package accounts

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// User is a person or program that may own files on every node, under one number.
type User struct {
	Name    string   `toml:"name"`
	UID     int      `toml:"uid"`
	Group   string   `toml:"group"`  // primary; unless set, one of the user's own name and number
	Groups  []string `toml:"groups"` // the others
	Comment string   `toml:"comment"`
	Home    string   `toml:"home"`
	Shell   string   `toml:"shell"`
	Keys    []string `toml:"keys"`     // SSH public keys
	Hash    string   `toml:"password"` // as crypt(5) hashes it; "*": none
}

// Group is a group with the same number on every node.
type Group struct {
	Name string `toml:"name"`
	GID  int    `toml:"gid"`
}

// Table is what the nodes of a network shall know.
type Table struct {
	Users  []User
	Groups []Group
}

// Bounds: the numbers are those that distributions leave to people.
const (
	minID      = 1000
	maxID      = 59999
	maxEntries = 4096
	maxKeys    = 64
	maxKey     = 16 << 10
	maxField   = 1024
)

var (
	// accountName is what useradd(8) takes in every distribution.
	accountName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	// cryptHash is what crypt(5) recommends, and bcrypt.
	cryptHash = regexp.MustCompile(`^\$(y|gy|7|2[aby]|6|5)\$[./A-Za-z0-9$=,]{10,500}$`)
	publicKey = regexp.MustCompile(`(^|\s)(ssh-|ecdsa-sha2-|sk-)\S+\s+[A-Za-z0-9+/=]+(\s|$)`)
)

// Check finds what no machine could use.
func (t Table) Check() error {
	if len(t.Users) > maxEntries || len(t.Groups) > maxEntries {
		return fmt.Errorf("%d users and %d groups; the limit is %d each", len(t.Users), len(t.Groups), maxEntries)
	}
	users, groups := map[string]bool{}, map[string]bool{}
	for _, g := range t.Groups {
		if err := g.Check(); err != nil {
			return err
		}
		if groups[g.Name] {
			return fmt.Errorf("group %q is there twice", g.Name)
		}
		groups[g.Name] = true
	}
	for _, u := range t.Users {
		if err := u.Check(); err != nil {
			return err
		}
		if users[u.Name] {
			return fmt.Errorf("user %q is there twice", u.Name)
		}
		users[u.Name] = true
	}
	return nil
}

// Check finds what no machine could use.
func (g Group) Check() error {
	if err := g.check(); err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	return nil
}

// Check finds what no machine could use.
func (u User) Check() error {
	if err := u.check(); err != nil {
		return fmt.Errorf("user %q: %w", u.Name, err)
	}
	return nil
}

func (g Group) check() error {
	switch {
	case !accountName.MatchString(g.Name):
		return errors.New("name: want up to 32 small letters, digits, dashes and underscores")
	case g.GID < minID || g.GID > maxID:
		return fmt.Errorf("gid %d: want %d to %d, the same on every node", g.GID, minID, maxID)
	}
	return nil
}

func (u User) check() error {
	switch {
	case !accountName.MatchString(u.Name):
		return errors.New("name: want up to 32 small letters, digits, dashes and underscores")
	case u.UID < minID || u.UID > maxID:
		return fmt.Errorf("uid %d: want %d to %d, the same on every node", u.UID, minID, maxID)
	case u.Hash != "" && u.Hash != "*" && !cryptHash.MatchString(u.Hash):
		return errors.New("password is in clear, or a hash that is easily broken: every machine of the network can read it. Use keys, or what `mkpasswd -m yescrypt` or `openssl passwd -6` prints")
	case u.Home != "" && !isPath(u.Home), u.Shell != "" && !isPath(u.Shell):
		return fmt.Errorf("home %q, shell %q: want paths such as \"/home/anna\"", u.Home, u.Shell)
	case !isField(u.Comment):
		return fmt.Errorf("comment %q: want one line without colons", u.Comment)
	case len(u.Keys) > maxKeys:
		return fmt.Errorf("%d keys; the limit is %d", len(u.Keys), maxKeys)
	}
	for _, name := range append([]string{u.Group}, u.Groups...) {
		if name != "" && !accountName.MatchString(name) {
			return fmt.Errorf("%q is no name of a group", name)
		}
	}
	for _, key := range u.Keys {
		if len(key) > maxKey || strings.ContainsFunc(key, unicode.IsControl) || !publicKey.MatchString(key) {
			return fmt.Errorf("key %.40q: want one line of a .pub file, such as \"ssh-ed25519 AAAA… anna@home\"", key)
		}
	}
	return nil
}

func isField(s string) bool {
	return len(s) <= maxField && !strings.Contains(s, ":") && !strings.ContainsFunc(s, unicode.IsControl)
}

func isPath(s string) bool { return isField(s) && s != "/" && path.IsAbs(s) && path.Clean(s) == s }

// Join makes one table of several, each with the name of whom it is from. Of two entries
// with one name or number the first counts; the error names both.
func Join(names []string, tables []Table) (Table, []error) {
	var all Table
	var errs []error
	users, uids, groups, gids := map[string]string{}, map[int]string{}, map[string]string{}, map[int]string{}
	for i, t := range tables {
		for _, g := range t.Groups {
			other, twice := groups[g.Name]
			if !twice {
				other, twice = gids[g.GID]
			}
			if twice {
				errs = append(errs, fmt.Errorf("group %s (%d) of %s: %s has that name or number already", g.Name, g.GID, names[i], other))
				continue
			}
			groups[g.Name], gids[g.GID] = names[i], names[i]
			all.Groups = append(all.Groups, g)
		}
		for _, u := range t.Users {
			other, twice := users[u.Name]
			if !twice {
				other, twice = uids[u.UID]
			}
			if twice {
				errs = append(errs, fmt.Errorf("user %s (%d) of %s: %s has that name or number already", u.Name, u.UID, names[i], other))
				continue
			}
			users[u.Name], uids[u.UID] = names[i], names[i]
			all.Users = append(all.Users, u)
		}
	}
	return all, errs
}

// Has reports whether the table has a user of that name.
func (t Table) Has(name string) bool {
	return slices.ContainsFunc(t.Users, func(u User) bool { return u.Name == name })
}
