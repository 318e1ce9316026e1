// Package keyfile keeps a machine's key, and the number of its last start, in
// files that only their owner reads.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
)

// maxFile bounds a key's file, in bytes.
const maxFile = 4096

var errFile = errors.New("not a regular file")

// NameFor is the name of the file for the key of the machine with this MAC address
// on a disk, which may be a copy of another machine's.
func NameFor(mac ether.MAC) string { return fmt.Sprintf("identity-%x.key", mac[:]) }

// SequenceFor is the file, beside that of a key, for the number of its last start.
func SequenceFor(file string) string { return strings.TrimSuffix(file, ".key") + ".sequence" }

// Read reads a key's file, which has to be a regular one that nobody but its
// owner may use. The error is fs.ErrNotExist when there is none.
func Read(path string) (identity.Key, error) {
	k, err := read(path)
	if err != nil {
		return k, fmt.Errorf("read this machine's key: %w", err)
	}
	return k, nil
}

func read(path string) (k identity.Key, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return k, err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return k, err
	case !fi.Mode().IsRegular():
		return k, fmt.Errorf("%s: %w", path, errFile)
	case fi.Mode().Perm()&0o077 != 0:
		return k, fmt.Errorf("%s may be used by others (mode %04o), who could speak as this machine", path, fi.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err == nil {
		k, err = identity.ParseKey(text)
	}
	if err != nil {
		return k, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// Write keeps the key in a file that only its owner reads.
func Write(path string, k identity.Key) error {
	text, err := k.Text()
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}

// Open reads the key in path, and makes one when there is none.
func Open(path string) (k identity.Key, made bool, err error) {
	if k, err = Read(path); !errors.Is(err, fs.ErrNotExist) {
		return k, false, err
	}
	if k, err = identity.Generate(); err != nil {
		return identity.Key{}, false, err
	}
	return k, true, Write(path, k)
}
