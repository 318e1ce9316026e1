package accounts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Files are the account files of a root, as text.
type Files struct {
	Passwd, Shadow, Group string
	// Gshadow is empty where the root has none; then none is made.
	Gshadow string
	// Made lists the accounts that a table has made here, one name a line.
	Made string
}

// Account is a user of the table as the root has it after a merge.
type Account struct {
	User
	GID int
	// Locked: an earlier table made the user, and this one lacks it.
	Locked bool
}

// Merge returns the files with the table in them, and its users as they then are.
// defaultShell is for those for whom the table names none. If the table is not whole,
// because something of it could not be read, nobody is locked for being absent from it.
func (t Table) Merge(now Files, defaultShell string, whole bool) (Files, []Account, []error) {
	m := merger{
		passwd: parse(now.Passwd, 7), shadow: parse(now.Shadow, 9), group: parse(now.Group, 4), gshadow: parse(now.Gshadow, 4),
		made: map[string]bool{}, hasGshadow: now.Gshadow != "", shell: defaultShell,
	}
	for name := range strings.FieldsSeq(now.Made) {
		m.made[name] = true
	}
	for _, g := range t.Groups {
		m.addGroup(g)
	}
	for _, u := range t.Users {
		m.addUser(u)
	}
	if whole {
		m.lockOthers(t)
	}
	after := Files{Passwd: m.passwd.text(), Shadow: m.shadow.text(), Group: m.group.text(), Gshadow: m.gshadow.text()}
	for _, e := range m.passwd.entries {
		if m.made[e[0]] {
			after.Made += e[0] + "\n"
		}
	}
	return after, m.accounts, m.errs
}

type merger struct {
	passwd, shadow, group, gshadow *database

	made       map[string]bool
	hasGshadow bool
	shell      string
	accounts   []Account
	errs       []error
}

func (m *merger) fail(format string, args ...any) {
	m.errs = append(m.errs, fmt.Errorf(format, args...))
}

// addGroup reports whether the group is there with its number.
func (m *merger) addGroup(g Group) bool {
	id := strconv.Itoa(g.GID)
	if e := m.group.find(0, g.Name); e != nil {
		if e[2] != id {
			m.fail("group %s: number %s in this image and %s in the table; choose another name or number", g.Name, e[2], id)
		}
		return e[2] == id
	}
	if e := m.group.find(2, id); e != nil {
		m.fail("group %s: number %s is group %s in this image; choose another", g.Name, id, e[0])
		return false
	}
	m.group.add(g.Name, "x", id, "")
	if m.hasGshadow && m.gshadow.find(0, g.Name) == nil {
		m.gshadow.add(g.Name, "!", "", "")
	}
	return true
}

func (m *merger) addUser(u User) {
	id := strconv.Itoa(u.UID)
	entry := m.passwd.find(0, u.Name)
	if entry != nil && entry[2] != id {
		m.fail("user %s: number %s in this image and %s in the table; choose another name or number", u.Name, entry[2], id)
		return
	}
	if other := m.passwd.find(2, id); entry == nil && other != nil {
		m.fail("user %s: number %s is user %s in this image; choose another", u.Name, id, other[0])
		return
	}
	gid, ok := m.primaryGroup(u, entry)
	if !ok {
		return
	}
	if entry == nil {
		m.made[u.Name] = true
		entry = m.passwd.add(u.Name, "x", id, gid, "", "/home/"+u.Name, m.shell)
	}
	entry[3] = gid
	set(entry, 4, u.Comment)
	set(entry, 5, u.Home)
	set(entry, 6, u.Shell)
	m.setPassword(u, entry)
	if u.Groups != nil || m.made[u.Name] {
		m.setGroups(u)
	}
	a := Account{User: u}
	a.Home, a.GID = entry[5], number(gid)
	m.accounts = append(m.accounts, a)
}

// primaryGroup returns the number of the user's group. A user whom the image has stays
// in the group that he has there, unless the table names one.
func (m *merger) primaryGroup(u User, entry []string) (gid string, ok bool) {
	switch {
	case u.Group != "":
		g := m.group.find(0, u.Group)
		if g == nil {
			m.fail("user %s: there is no group %s, neither in the table nor in this image", u.Name, u.Group)
			return "", false
		}
		return g[2], true
	case entry != nil && !m.made[u.Name]:
		return entry[3], true
	}
	return strconv.Itoa(u.UID), m.addGroup(Group{Name: u.Name, GID: u.UID})
}

// setPassword gives the user the table's hash. Without one a user whom the table makes
// has no password, which is not the same as a locked account: keys work.
func (m *merger) setPassword(u User, entry []string) {
	e := m.shadow.find(0, u.Name)
	if e == nil {
		hash := entry[1]
		if hash == "x" || hash == "" {
			hash = "*"
		}
		e = m.shadow.add(u.Name, hash, "", "0", "99999", "7", "", "", "")
	}
	entry[1] = "x"
	if m.made[u.Name] && e[7] == locked { // by lockOthers
		e[1], e[7] = strings.TrimPrefix(e[1], "!"), ""
	}
	if u.Hash != "" && strings.TrimPrefix(e[1], "!") != u.Hash { // "!": locked on this machine
		e[1] = u.Hash
	}
}

// setGroups makes the user a member of the table's groups and of no other.
func (m *merger) setGroups(u User) {
	for _, name := range u.Groups {
		if m.group.find(0, name) == nil {
			m.fail("user %s: there is no group %s, neither in the table nor in this image", u.Name, name)
		}
	}
	for _, db := range []*database{m.group, m.gshadow} {
		for _, e := range db.entries {
			e[3] = member(e[3], u.Name, slices.Contains(u.Groups, e[0]))
		}
	}
}

// member puts a name into a list, or takes it out.
func member(list, name string, want bool) string {
	names := slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
	if slices.Contains(names, name) == want {
		return list
	}
	if want {
		return strings.Join(append(names, name), ",")
	}
	return strings.Join(slices.DeleteFunc(names, func(s string) bool { return s == name }), ",")
}

// locked is the day on which a locked account has expired: then neither a password nor
// a key opens it (shadow(5)).
const locked = "1"

// lockOthers locks the users whom an earlier table made. Their files stay.
func (m *merger) lockOthers(t Table) {
	for _, entry := range m.passwd.entries {
		if !m.made[entry[0]] || t.Has(entry[0]) {
			continue
		}
		if e := m.shadow.find(0, entry[0]); e != nil && e[7] != locked {
			e[1], e[7] = "!"+strings.TrimPrefix(e[1], "!"), locked
		}
		m.setGroups(User{Name: entry[0]})
		m.accounts = append(m.accounts, Account{User: User{Name: entry[0], UID: number(entry[2]), Home: entry[5]}, GID: number(entry[3]), Locked: true})
	}
}

func set(entry []string, field int, value string) {
	if value != "" {
		entry[field] = value
	}
}

// number reads an ID; what is none becomes one that owns nothing.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 65534
	}
	return int(n)
}

// database is one of the files: lines of fields with colons between.
type database struct {
	width   int
	lines   []any // a string that is left as it stands, or an entry
	entries [][]string
}

func parse(text string, width int) *database {
	db := &database{width: width}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		e := strings.Split(line, ":")
		if len(e) != width || e[0] == "" || strings.ContainsAny(e[0][:1], "#+-") { // a comment, or NIS
			db.lines = append(db.lines, line)
			continue
		}
		db.lines = append(db.lines, e)
		db.entries = append(db.entries, e)
	}
	return db
}

func (db *database) find(field int, value string) []string {
	for _, e := range db.entries {
		if e[field] == value {
			return e
		}
	}
	return nil
}

func (db *database) add(e ...string) []string {
	db.lines = append(db.lines, e)
	db.entries = append(db.entries, e)
	return e
}

func (db *database) text() string {
	var b strings.Builder
	for _, line := range db.lines {
		switch line := line.(type) {
		case string:
			b.WriteString(line)
		case []string:
			b.WriteString(strings.Join(line, ":"))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
