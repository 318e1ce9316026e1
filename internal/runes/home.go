package runes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/accounts"
)

const (
	skelDir = "/etc/skel"
	maxSkel = 1 << 20 // bytes of one file in it
	keysDir = ".ssh"
	keyFile = keysDir + "/authorized_keys"
	maxKeys = 1 << 20 // bytes of a user's authorized_keys
	// keyMark ends each line of ours in that file, as in the rune ssh.
	keyMark = " (viver)"
)

// layHome makes a user's home and puts the table's keys into it. A home on a file
// server is that server's to make: its members may not write there, and one that does
// not answer stops who looks.
func (t *target) layHome(u accounts.Account) error {
	resolved, err := t.resolve(u.Home)
	if err != nil || t.onServer(resolved) {
		return err
	}
	r, name := t.at(resolved)
	info, err := r.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && u.Locked:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		err = t.makeHome(u, resolved)
	case err == nil:
		if uid, _ := ownerOf(info); !info.IsDir() || uid != u.UID {
			err = fmt.Errorf("%s belongs to number %d, not to %d: it is left as it is, and no key is laid", resolved, uid, u.UID)
		}
	}
	if err != nil {
		return err
	}
	// From here on all paths are inside of the home, so links that the user made lead to
	// nothing but the user's own files.
	home, err := r.OpenRoot(name)
	if err != nil {
		return err
	}
	return errors.Join(layKeys(home, u), home.Close())
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return 0, 0
}

// makeHome makes a home as adduser(8) does. It gets its name when it is complete.
func (t *target) makeHome(u accounts.Account, resolved string) error {
	if err := t.makeDir(path.Dir(resolved)); err != nil {
		return err
	}
	r, name := t.at(resolved)
	temp := path.Join(path.Dir(name), "."+path.Base(name)+".rune-part")
	if err := r.RemoveAll(temp); err != nil {
		return err
	}
	err := r.Mkdir(temp, 0o700)
	if err == nil {
		err = t.fillHome(r, temp, u)
	}
	if err == nil {
		err = r.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, r.RemoveAll(temp))
	}
	return nil
}

func (t *target) fillHome(r *os.Root, temp string, u accounts.Account) error {
	home, err := r.OpenRoot(temp)
	if err != nil {
		return err
	}
	defer home.Close() // opened for reading: nothing can be lost
	if err := t.copySkel(home, u); err != nil {
		return fmt.Errorf("copy %s: %w", skelDir, err)
	}
	return home.Chown(".", u.UID, u.GID)
}

func (t *target) copySkel(home *os.Root, u accounts.Account) error {
	resolved, err := t.resolve(skelDir)
	if err != nil {
		return err
	}
	r, name := t.at(resolved)
	skel, err := r.OpenRoot(name)
	if err != nil {
		return ignoreMissing(err)
	}
	defer skel.Close() // opened for reading: nothing can be lost
	return fs.WalkDir(skel.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		info, err := d.Info()
		switch {
		case err != nil:
		case d.IsDir():
			err = home.Mkdir(p, info.Mode().Perm())
		case d.Type().IsRegular() && info.Size() <= maxSkel:
			var data []byte
			if data, err = skel.ReadFile(p); err == nil {
				err = writeNew(home, p, info.Mode().Perm(), data)
			}
		default:
			return nil // a link or device: useradd(8) would copy it, and no distribution has one
		}
		if err != nil {
			return err
		}
		return home.Chown(p, u.UID, u.GID)
	})
}

// layKeys puts the table's keys into a user's authorized_keys, and takes those of an
// earlier table out. Others stay.
func layKeys(home *os.Root, u accounts.Account) error {
	old, err := readOwn(home, keyFile, u.UID)
	if err != nil {
		return err
	}
	text, err := without(` \(viver\)$`, old)
	if err != nil {
		return err
	}
	for _, key := range u.Keys {
		text += strings.TrimSpace(key) + keyMark + "\n"
	}
	if text == old {
		return nil
	}
	err = home.Mkdir(keysDir, 0o700)
	if err == nil {
		err = giveDir(home, keysDir, u)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return replaceWith(home, keyFile, func(temp string) error {
		return writeOwned(home, temp, u.UID, u.GID, 0o600, []byte(text))
	})
}

// giveDir gives a user a directory, and never a file that the user has linked in its place.
func giveDir(home *os.Root, name string, u accounts.Account) error {
	dir, err := enter(home, name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Chown(".", u.UID, u.GID), dir.Close())
}

// readOwn returns a regular file of the user's, ending in a newline. No file is no
// content; one of somebody else, which a hard link can be, is an error.
func readOwn(home *os.Root, name string, uid int) (string, error) {
	f, err := home.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // of a pipe, too
	if err != nil {
		return "", ignoreMissing(err)
	}
	defer f.Close() // opened for reading: nothing can be lost
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if owner, _ := ownerOf(info); !info.Mode().IsRegular() || info.Size() > maxKeys || owner != uid {
		return "", fmt.Errorf("%s is no file of the user's of at most %d bytes: it is left as it is", name, maxKeys)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeys))
	text := string(data)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text, err
}
