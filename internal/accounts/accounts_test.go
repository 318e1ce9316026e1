package accounts

import (
	"slices"
	"strings"
	"testing"
)

// debian is what base-passwd and one user of the image leave.
func debian() Files {
	return Files{
		Passwd:  "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nsite:x:1000:1000::/home/site:/bin/bash\n",
		Shadow:  "root:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nsite:$y$j9T$abc$def:19000:0:99999:7:::\n",
		Group:   "root:x:0:\nsudo:x:27:site\nsite:x:1000:\nusers:x:100:\n",
		Gshadow: "root:*::\nsudo:*::site\nsite:!::\nusers:*::\n",
	}
}

const hash = "$y$j9T$eDRfGuRT7oxbsNRYZxyF3/$PB6nPmYYQhVdMeBcnmzzi4bQv5SVXCzYRRqsfFmy4Q3"

func anna() User {
	return User{Name: "anna", UID: 3001, Groups: []string{"sudo", "lab"}, Comment: "Anna A.", Hash: hash}
}

func lab() Table {
	return Table{Users: []User{anna(), {Name: "bob", UID: 3002, Group: "lab", Shell: "/bin/sh"}}, Groups: []Group{{Name: "lab", GID: 3000}}}
}

// merge fails the test where the result is not the same when merged once more.
func merge(t *testing.T, table Table, now Files) (Files, []Account, []error) {
	t.Helper()
	after, users, errs := table.Merge(now, "/bin/bash", true)
	again, sameUsers, _ := table.Merge(after, "/bin/bash", true)
	if again != after || len(sameUsers) != len(users) {
		t.Errorf("merged again:\n%+v\nwant\n%+v", again, after)
	}
	return after, users, errs
}

func wantLines(t *testing.T, what, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("%s lacks %q:\n%s", what, line, text)
		}
	}
}

func TestMerge(t *testing.T) {
	before := debian()
	f, users, errs := merge(t, lab(), before)
	if len(errs) > 0 || len(users) != 2 || users[0].Home != "/home/anna" || users[0].GID != 3001 || users[1].GID != 3000 {
		t.Errorf("%+v, %v", users, errs)
	}
	wantLines(t, "passwd", f.Passwd, "anna:x:3001:3001:Anna A.:/home/anna:/bin/bash", "bob:x:3002:3000::/home/bob:/bin/sh")
	wantLines(t, "shadow", f.Shadow, "anna:"+hash+"::0:99999:7:::", "bob:*::0:99999:7:::")
	wantLines(t, "group", f.Group, "sudo:x:27:site,anna", "lab:x:3000:anna", "anna:x:3001:")
	wantLines(t, "gshadow", f.Gshadow, "sudo:*::site,anna", "lab:!::anna", "anna:!::")
	if !strings.HasPrefix(f.Passwd, before.Passwd) || !strings.HasPrefix(f.Shadow, before.Shadow) {
		t.Errorf("the image's own users changed:\n%s%s", f.Passwd, f.Shadow)
	}

	// Saved data: the table of the next boot has another group, and lacks bob.
	table := lab()
	table.Users = table.Users[:1]
	table.Users[0].Groups = []string{"users"}
	f, users, errs = merge(t, table, f)
	if len(errs) > 0 || len(users) != 2 || !users[1].Locked || users[1].Name != "bob" {
		t.Errorf("%+v, %v", users, errs)
	}
	wantLines(t, "group", f.Group, "sudo:x:27:site", "lab:x:3000:", "users:x:100:anna")
	wantLines(t, "passwd", f.Passwd, "bob:x:3002:3000::/home/bob:/bin/sh")
	wantLines(t, "shadow", f.Shadow, "bob:!*::0:99999:7::1:")
	// A table of which a part could not be read locks nobody.
	if part, users, _ := (Table{}).Merge(f, "/bin/bash", false); part.Shadow != f.Shadow || len(users) > 0 {
		t.Errorf("%v\n%s", users, part.Shadow)
	}
	// And back again.
	f, _, _ = merge(t, lab(), f)
	wantLines(t, "shadow", f.Shadow, "bob:*::0:99999:7:::")

	// What a person changed on this machine stays, as far as the table says nothing.
	f.Shadow = strings.Replace(f.Shadow, "bob:*:", "bob:$6$saltsalt$his.own:", 1)
	f.Shadow = strings.Replace(f.Shadow, "anna:"+hash, "anna:!"+hash, 1) // passwd -l
	f, _, _ = merge(t, lab(), f)
	wantLines(t, "shadow", f.Shadow, "bob:$6$saltsalt$his.own::0:99999:7:::", "anna:!"+hash+"::0:99999:7:::")
	table = lab()
	table.Users[1].Hash = "*"
	f, _, _ = merge(t, table, f)
	wantLines(t, "shadow", f.Shadow, "bob:*::0:99999:7:::")
}

func TestConflictsCostTheirEntryOnly(t *testing.T) {
	table := lab()
	table.Groups = append(table.Groups, Group{Name: "sudo", GID: 3100}, Group{Name: "pool", GID: 1000})
	table.Users = append(table.Users, User{Name: "root", UID: 4000}, User{Name: "eve", UID: 1000}, User{Name: "kim", UID: 4001, Group: "nowhere"}, User{Name: "lee", UID: 4002, Groups: []string{"nothere"}})
	f, users, errs := merge(t, table, debian())
	if len(users) != 3 {
		t.Errorf("%+v", users)
	}
	for i, want := range []string{"group sudo: number 27 in this image and 3100", "group pool: number 1000 is group site", "user root: number 0 in this image", "user eve: number 1000 is user site", "user kim: there is no group nowhere", "user lee: there is no group nothere"} {
		if i >= len(errs) || !strings.Contains(errs[i].Error(), want) {
			t.Fatalf("%v, want %q", errs, want)
		}
	}
	wantLines(t, "passwd", f.Passwd, "root:x:0:0:root:/root:/bin/bash", "lee:x:4002:4002::/home/lee:/bin/bash")
	if strings.Contains(f.Passwd, "eve") || strings.Contains(f.Passwd, "kim") {
		t.Errorf("%s", f.Passwd)
	}
}

// A user whom the image has under the same number is the same person.
func TestUserOfTheImage(t *testing.T) {
	table := Table{Users: []User{{Name: "site", UID: 1000, Shell: "/bin/zsh"}}}
	f, _, errs := merge(t, table, debian())
	if len(errs) > 0 || f.Made != "" || f.Group != debian().Group || f.Shadow != debian().Shadow {
		t.Errorf("%+v, %v", f, errs)
	}
	wantLines(t, "passwd", f.Passwd, "site:x:1000:1000::/home/site:/bin/zsh")
	if f, users, _ := merge(t, Table{}, f); len(users) != 0 || f.Shadow != debian().Shadow {
		t.Errorf("out of the table, the image's user changed: %v\n%s", users, f.Shadow)
	}
}

// A small image has neither shadow nor gshadow.
func TestPasswdAlone(t *testing.T) {
	f, _, errs := merge(t, lab(), Files{Passwd: "root::0:0:root:/:/bin/sh\n+::::::\n", Group: "root:x:0:\nsudo:x:27:\n"})
	if len(errs) > 0 || f.Gshadow != "" {
		t.Errorf("%+v, %v", f, errs)
	}
	wantLines(t, "passwd", f.Passwd, "root::0:0:root:/:/bin/sh", "+::::::", "anna:x:3001:3001:Anna A.:/home/anna:/bin/bash")
	wantLines(t, "shadow", f.Shadow, "anna:"+hash+"::0:99999:7:::")
}

func TestCheck(t *testing.T) {
	if err := lab().Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Table){
		"password is in clear":  func(t *Table) { t.Users[0].Hash = "secret" },
		"easily broken":         func(t *Table) { t.Users[0].Hash = "$1$salt$abcdefghijklmnop" },
		"uid 0: want 1000":      func(t *Table) { t.Users[0].UID = 0 },
		"gid 65534":             func(t *Table) { t.Groups[0].GID = 65534 },
		"small letters":         func(t *Table) { t.Users[0].Name = "Anna:x" },
		"anna\" is there twice": func(t *Table) { t.Users[1].Name = "anna" },
		"without colons":        func(t *Table) { t.Users[0].Comment = "a\nroot2::0:0::/:" },
		"want paths":            func(t *Table) { t.Users[0].Home = "/home/../etc" },
		"of a .pub file":        func(t *Table) { t.Users[0].Keys = []string{"-----BEGIN OPENSSH PRIVATE KEY-----"} },
		"no name of a group":    func(t *Table) { t.Users[0].Groups = []string{"a,b"} },
	} {
		table := lab()
		change(&table)
		if err := table.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	table := lab()
	table.Users[0].Keys = []string{"ssh-ed25519 AAAAC3Nz anna@home", `from="10.0.0.0/8" ecdsa-sha2-nistp256 AAAA`}
	if err := table.Check(); err != nil {
		t.Error(err)
	}
}

func TestTwoTables(t *testing.T) {
	other := Table{Users: []User{{Name: "anna", UID: 5000}, {Name: "zoe", UID: 3002}, {Name: "ok", UID: 5001}}, Groups: []Group{{Name: "lab", GID: 3000}}}
	table, errs := Join([]string{"rune users", "rune course"}, []Table{lab(), other})
	if len(table.Users) != 3 || len(table.Groups) != 1 || len(errs) != 3 || !strings.Contains(errs[1].Error(), "anna (5000) of rune course: rune users has") {
		t.Errorf("%+v, %v", table, errs)
	}
}

// Whatever the files of an image hold, a merge ends, is complete after one time, gives
// nobody the numbers of root, and loses no line.
func FuzzMerge(f *testing.F) {
	d := debian()
	f.Add(d.Passwd, d.Shadow, d.Group, d.Gshadow, "anna\n")
	f.Add("anna:x:3001:1::/:/\nbob:x:99:99::/:/\n", "anna:!x:::::1:1:", "lab:x:1:a,,b\n", "\n::::\n", "anna bob")
	f.Fuzz(func(t *testing.T, passwd, shadow, group, gshadow, made string) {
		now := Files{Passwd: passwd, Shadow: shadow, Group: group, Gshadow: gshadow, Made: made}
		after, users, _ := lab().Merge(now, "/bin/sh", true)
		again, _, _ := lab().Merge(after, "/bin/sh", true)
		if again != after {
			t.Errorf("%+v\nmerged again\n%+v", after, again)
		}
		for _, u := range users {
			if !u.Locked && u.UID < minID {
				t.Errorf("%+v", u)
			}
		}
		if n, m := strings.Count(passwd, "\n"), strings.Count(after.Passwd, "\n"); m < n {
			t.Errorf("%d lines became %d", n, m)
		}
	})
}
