package runes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/accounts"
	"viver.lan/internal/sleep"
)

// The account files, and the one that says which accounts are from a table. It is in
// /etc, to be kept and lost together with the others.
const (
	passwdFile  = "/etc/passwd"
	shadowFile  = "/etc/shadow"
	groupFile   = "/etc/group"
	gshadowFile = "/etc/gshadow"
	madeFile    = "/etc/viver/accounts"
	// accountsLock is held by passwd(1), useradd(8) and the like while they write
	// (lckpwdf(3)).
	accountsLock = "/etc/.pwd.lock"
)

// accountsWait is how long such a program may take: lckpwdf(3) waits as long.
const accountsWait = 15 * time.Second

// ApplyAccounts brings the users and groups of the bundles whose conditions hold into
// the root, the same on every node. whole says that these are all bundles there are:
// otherwise users who are in none of them are not locked.
func ApplyAccounts(ctx context.Context, where Target, bundles []Bundle, facts Facts, whole bool) error {
	s, err := OpenSystem(where)
	if err != nil {
		return err
	}
	defer s.Close() // opened for reading: nothing can be lost
	return s.ApplyAccounts(ctx, bundles, facts, whole)
}

// ApplyAccounts is the function of that name for a running system, where it can be called
// again and again: where nothing changes nothing is written.
func (s *System) ApplyAccounts(ctx context.Context, bundles []Bundle, facts Facts, whole bool) error {
	t := s.t
	var names []string
	var tables []accounts.Table
	for _, b := range Merge(bundles) {
		if b.when.unmet(t, facts) == "" && len(b.accounts.Users)+len(b.accounts.Groups) > 0 {
			names, tables = append(names, "rune "+b.Name), append(tables, b.accounts)
		}
	}
	if len(tables) == 0 && !t.exists(madeFile) {
		return nil
	}
	if !t.exists(passwdFile) || !t.exists(groupFile) {
		return fmt.Errorf("no users are made: this image has no %s and %s", passwdFile, groupFile)
	}
	table, errs := accounts.Join(names, tables)
	errs = append(errs, t.knownShells(&table)...)
	users, more, err := t.mergeAccounts(ctx, table, whole)
	errs = append(errs, more...)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, u := range users {
		if err := t.layHome(u); err != nil {
			errs = append(errs, fmt.Errorf("user %s: %w", u.Name, err))
		}
	}
	return errors.Join(errs...)
}

// checkAccounts finds what no machine could use, and where it is.
func (m *runeTOML) checkAccounts() error {
	for i, g := range m.Group {
		if err := g.Check(); err != nil {
			return at(err, "group", i)
		}
	}
	for i, u := range m.User {
		if err := u.Check(); err != nil {
			return at(err, "user", i)
		}
	}
	return accounts.Table{Users: m.User, Groups: m.Group}.Check()
}

// knownShells takes out shells that the image lacks: nobody could log in with one.
func (t *target) knownShells(table *accounts.Table) (errs []error) {
	for i, u := range table.Users {
		if u.Shell != "" && !t.exists(u.Shell) {
			errs = append(errs, fmt.Errorf("user %s: the shell %s is not in the image, %s is used", u.Name, u.Shell, t.defaultShell()))
			table.Users[i].Shell = ""
		}
	}
	return errs
}

func (t *target) defaultShell() string {
	if t.exists("/bin/bash") {
		return "/bin/bash"
	}
	return "/bin/sh"
}

// mergeAccounts reads, merges and writes while no other program does.
func (t *target) mergeAccounts(ctx context.Context, table accounts.Table, whole bool) (users []accounts.Account, wrong []error, err error) {
	lock, err := t.lockAccounts(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	var now accounts.Files
	for name, text := range accountTexts(&now) {
		if *text, err = t.content(name); err != nil {
			return nil, nil, err
		}
	}
	after, users, wrong := table.Merge(now, t.defaultShell(), whole)
	// First what is made, then all that a name in passwd leads to: a merge that is cut
	// short is completed by the next.
	texts := accountTexts(&after)
	for _, name := range []string{madeFile, groupFile, gshadowFile, shadowFile, passwdFile} {
		if old := *accountTexts(&now)[name]; *texts[name] == old {
			continue
		}
		if err := t.replaceText(name, *texts[name]); err != nil {
			return nil, wrong, fmt.Errorf("%s: %w", name, err)
		}
	}
	return users, wrong, nil
}

func accountTexts(f *accounts.Files) map[string]*string {
	return map[string]*string{madeFile: &f.Made, groupFile: &f.Group, gshadowFile: &f.Gshadow, shadowFile: &f.Shadow, passwdFile: &f.Passwd}
}

// lockAccounts takes the lock of the account files; closing the file gives it back.
func (t *target) lockAccounts(ctx context.Context) (*os.File, error) {
	resolved, err := t.resolve(accountsLock)
	if err != nil {
		return nil, err
	}
	r, name := t.at(resolved)
	f, err := r.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, accountsWait, fmt.Errorf("another program has held %s for %s", accountsLock, accountsWait))
	defer cancel()
	for {
		// Of the open file, not of the process: it ends with the file that is closed.
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, errors.Join(err, f.Close())
		}
		if err := sleep.For(ctx, 50*time.Millisecond); err != nil {
			return nil, errors.Join(context.Cause(ctx), f.Close())
		}
	}
}

// replaceText gives a file new content in one step. Owner and mode stay; links are
// followed. A new one is for root, and for group shadow if it holds hashes.
func (t *target) replaceText(file, content string) error {
	resolved, err := t.resolve(file)
	if err != nil {
		return err
	}
	if err := t.makeDir(path.Dir(resolved)); err != nil {
		return err
	}
	r, name := t.at(resolved)
	mode, uid, gid := fs.FileMode(0o600), 0, 0
	if info, err := r.Lstat(name); err == nil {
		mode = info.Mode().Perm()
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(s.Uid), int(s.Gid)
		}
	}
	return replaceWith(r, name, func(temp string) error {
		if err := writeNew(r, temp, mode, []byte(content)); err != nil {
			return err
		}
		return r.Chown(temp, uid, gid)
	})
}
