package runes

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

const usersManifest = `
name        = "users"
description = "the people of the lab"

[[group]]
name = "lab"
gid  = 3000

[[user]]
name     = "anna"
uid      = 3001
groups   = ["lab", "sudo"]
password = "$y$j9T$eDRfGuRT7oxbsNRYZxyF3/$PB6nPmYYQhVdMeBcnmzzi4bQv5SVXCzYRRqsfFmy4Q3"
keys     = ["ssh-ed25519 AAAAC3Nz anna@home"]

[[user]]
name  = "bob"
uid   = 3002
shell = "/bin/zsh"
`

func usersRune(t *testing.T, manifest string) []Bundle {
	t.Helper()
	return one(t, fstest.MapFS{"users/rune.toml": &fstest.MapFile{Data: []byte(manifest), Mode: 0o644}})
}

func accountsImage(t *testing.T) Target {
	if os.Getuid() != 0 {
		t.Skip("files of other users are root's to make")
	}
	where := image(t, map[string]string{
		"etc/passwd":             "root:x:0:0:root:/root:/bin/bash\n",
		"etc/shadow":             "root:*:19000:0:99999:7:::\n",
		"etc/group":              "root:x:0:\nsudo:x:27:\nshadow:x:42:\n",
		"etc/gshadow":            "root:*::\nsudo:*::\nshadow:*::\n",
		"etc/skel/.profile":      "umask 027\n",
		"etc/skel/.config/empty": "",
		"bin/bash":               "",
	})
	must(t, os.Chown(filepath.Join(where.Root, "etc/shadow"), 0, 42))
	must(t, os.Chmod(filepath.Join(where.Root, "etc/shadow"), 0o640))
	return where
}

// wantOwned checks mode and owner of a path in the root.
func wantOwned(t *testing.T, where Target, name string, mode os.FileMode, uid, gid uint32) {
	t.Helper()
	info, err := os.Lstat(filepath.Join(where.Root, name))
	if err != nil {
		t.Error(err)
		return
	}
	if s := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != mode || s.Uid != uid || s.Gid != gid {
		t.Errorf("%s: mode %o of %d:%d, want %o of %d:%d", name, info.Mode().Perm(), s.Uid, s.Gid, mode, uid, gid)
	}
}

func TestUsersOfARune(t *testing.T) {
	where := accountsImage(t)
	err := ApplyAccounts(t.Context(), where, usersRune(t, usersManifest), testFacts(), true)
	if err == nil || !strings.Contains(err.Error(), "user bob: the shell /bin/zsh is not in the image, /bin/bash is used") || strings.Contains(err.Error(), "anna") {
		t.Errorf("%v", err)
	}
	if got := read(t, where, "/etc/passwd"); !strings.HasSuffix(got, "anna:x:3001:3001::/home/anna:/bin/bash\nbob:x:3002:3002::/home/bob:/bin/bash\n") {
		t.Errorf("passwd: %s", got)
	}
	if got := read(t, where, "/etc/group"); !strings.Contains(got, "sudo:x:27:anna\n") {
		t.Errorf("group: %s", got)
	}
	wantOwned(t, where, "/etc/shadow", 0o640, 0, 42)
	wantOwned(t, where, "/etc/passwd", 0o644, 0, 0)
	wantOwned(t, where, "/home", 0o755, 0, 0)
	wantOwned(t, where, "/home/anna", 0o700, 3001, 3001)
	wantOwned(t, where, "/home/anna/.config/empty", 0o644, 3001, 3001)
	wantOwned(t, where, "/home/anna/.ssh", 0o700, 3001, 3001)
	wantOwned(t, where, "/home/anna/.ssh/authorized_keys", 0o600, 3001, 3001)
	wantOwned(t, where, "/home/bob/.profile", 0o644, 3002, 3002)
	if got := read(t, where, "/home/anna/.ssh/authorized_keys"); got != "ssh-ed25519 AAAAC3Nz anna@home (viver)\n" {
		t.Errorf("keys: %q", got)
	}

	// Saved data: her own key stays, the table's goes with the table; the home stays.
	must(t, os.WriteFile(filepath.Join(where.Root, "home/anna/.ssh/authorized_keys"), []byte("ssh-rsa OWN\nssh-ed25519 AAAAC3Nz anna@home (viver)\n"), 0o600))
	if err := ApplyAccounts(t.Context(), where, nil, testFacts(), true); err != nil {
		t.Error(err)
	}
	if got := read(t, where, "/home/anna/.ssh/authorized_keys"); got != "ssh-rsa OWN\n" {
		t.Errorf("keys: %q", got)
	}
	if got := read(t, where, "/etc/shadow"); !strings.Contains(got, "anna:!$y$") || !strings.Contains(got, "bob:!*:") {
		t.Errorf("shadow: %s", got)
	}
	if got := read(t, where, "/home/bob/.profile"); got != "umask 027\n" {
		t.Errorf("the home is gone: %q", got)
	}
}

// Programs of Debian take what was written for right, and change it under the same lock.
func TestUsersAreThoseOfTheSystem(t *testing.T) {
	where := accountsImage(t)
	if err := ApplyAccounts(t.Context(), where, usersRune(t, strings.Replace(usersManifest, "/bin/zsh", "/bin/bash", 1)), testFacts(), true); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"pwck", "-r", "-q", "-R", where.Root}, {"grpck", "-r", "-R", where.Root}} {
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}

func TestNoUsersAreWanted(t *testing.T) {
	where := image(t, map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "etc/group": ""})
	if err := ApplyAccounts(t.Context(), where, builtins(t), testFacts(), true); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(where.Root, "etc")); len(left) != 2 {
		t.Errorf("%v", left)
	}
}

// What a user makes of the home leads root nowhere else.
func TestLinksOfAUserLeadNowhere(t *testing.T) {
	where := accountsImage(t)
	home := filepath.Join(where.Root, "home/anna")
	secret := filepath.Join(where.Root, "etc/secret")
	must(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	bundles := usersRune(t, usersManifest)
	for what, setUp := range map[string]func(){
		"a link to a folder": func() { must(t, os.Symlink("../../etc", filepath.Join(home, ".ssh"))) },
		"an absolute link":   func() { must(t, os.Symlink("/etc", filepath.Join(home, ".ssh"))) },
		"a link to a file": func() {
			must(t, os.Mkdir(filepath.Join(home, ".ssh"), 0o700))
			must(t, os.Symlink("../../../etc/secret", filepath.Join(home, ".ssh/authorized_keys")))
		},
		"a hard link": func() {
			must(t, os.Mkdir(filepath.Join(home, ".ssh"), 0o700))
			must(t, os.Link(secret, filepath.Join(home, ".ssh/authorized_keys")))
		},
		"a pipe": func() {
			must(t, os.Mkdir(filepath.Join(home, ".ssh"), 0o700))
			must(t, unix.Mkfifo(filepath.Join(home, ".ssh/authorized_keys"), 0o600))
		},
		"a file in the folder's place": func() { must(t, os.WriteFile(filepath.Join(home, ".ssh"), nil, 0o600)) },
	} {
		must(t, os.RemoveAll(home))
		must(t, os.MkdirAll(home, 0o700))
		must(t, os.Chown(home, 3001, 3001))
		setUp()
		if err := ApplyAccounts(t.Context(), where, bundles, testFacts(), true); err == nil || !strings.Contains(err.Error(), "user anna: ") {
			t.Errorf("%s: %v", what, err)
		}
		if got := read(t, where, "/etc/secret"); got != "secret\n" {
			t.Errorf("%s: %q", what, got)
		}
		wantOwned(t, where, "/etc/secret", 0o600, 0, 0)
		if _, err := os.Stat(filepath.Join(where.Root, "etc/authorized_keys")); err == nil {
			t.Errorf("%s: keys were written into /etc", what)
		}
	}
	// Nor does a home that is somebody else's change.
	must(t, os.RemoveAll(home))
	must(t, os.Mkdir(home, 0o755))
	if err := ApplyAccounts(t.Context(), where, bundles, testFacts(), true); err == nil || !strings.Contains(err.Error(), "/home/anna belongs to number 0, not to 3001") {
		t.Errorf("%v", err)
	}
}

// passwd(1) and its like hold a lock while they write.
func TestAccountsWaitForOthers(t *testing.T) {
	where := accountsImage(t)
	f, err := os.OpenFile(filepath.Join(where.Root, "etc/.pwd.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	before, held := read(t, where, "/etc/passwd"), errors.New("still held")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, held)
	defer cancel()
	if err := ApplyAccounts(ctx, where, usersRune(t, usersManifest), testFacts(), true); !errors.Is(err, held) || read(t, where, "/etc/passwd") != before {
		t.Errorf("it did not wait: %v", err)
	}
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}))
	if err := ApplyAccounts(t.Context(), where, usersRune(t, usersManifest), testFacts(), true); errors.Is(err, held) || !strings.Contains(read(t, where, "/etc/passwd"), "anna") {
		t.Errorf("%v", err)
	}
}

func TestManifestWithAClearPassword(t *testing.T) {
	_, errs := Load(fstest.MapFS{"users/rune.toml": &fstest.MapFile{Data: []byte("name = \"users\"\n[[user]]\nname = \"anna\"\nuid = 3001\npassword = \"geheim\"\n")}})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), `user "anna": password is in clear`) || strings.Contains(errs[0].Error(), "geheim") {
		t.Errorf("%v", errs)
	}
}

// What docs/runes/users.md shows is taken as it stands.
func TestUsersPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/runes/users.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "```toml\n")
	manifest, _, _ := strings.Cut(rest, "```")
	b := usersRune(t, manifest)[0]
	if d := b.Describe(); !slices.Equal(d.Users, []string{"anna (3001)"}) || !slices.Equal(d.Groups, []string{"lab (3000)"}) {
		t.Errorf("%+v", d)
	}
}
