package sign

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"viver.lan/internal/durable"
)

// Names of the owner's key files in the configuration directory.
const (
	KeyFile       = "owner.key"
	PublicKeyFile = "owner.pub"
)

// PublicPath is where the public half lies beside a secret key file:
// owner.pub for owner.key.
func PublicPath(key string) string { return strings.TrimSuffix(key, ".key") + ".pub" }

// ReadPublicKey reads a public key file.
func ReadPublicKey(path string) (PublicKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return PublicKey{}, fmt.Errorf("read the public key: %w", err)
	}
	k, err := ParsePublicKey(data)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ReadPrivateKey reads a secret key file that nobody else may read.
func ReadPrivateKey(path string) (PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read the owner's key: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return PrivateKey{}, fmt.Errorf("read the owner's key: %w", err)
	case !fi.Mode().IsRegular():
		return PrivateKey{}, fmt.Errorf("%s is not a file with a key", path)
	case fi.Mode().Perm()&0o077 != 0:
		return PrivateKey{}, fmt.Errorf("%s may be used by others (mode %04o), who could sign as the owner: chmod 600 it, or make another key if they had the time", path, fi.Mode().Perm())
	case fi.Size() > MaxKeySize:
		return PrivateKey{}, fmt.Errorf("%s is not a file with a key: it has %d bytes", path, fi.Size())
	}
	data := make([]byte, fi.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return PrivateKey{}, fmt.Errorf("read the owner's key: %w", err)
	}
	k, err := parsePrivateKey(data)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// OpenKey reads the secret key in path. When there is none it makes one, whole
// or not at all, and says so. The public half lies at PublicPath(path).
func OpenKey(path string) (k PrivateKey, made bool, err error) {
	k, err = ReadPrivateKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		k, made, err = makeKey(path)
	}
	if err != nil {
		return PrivateKey{}, false, err
	}
	return k, made, keepPublic(PublicPath(path), k.Public())
}

// makeKey makes a key file. When another process is faster its key is used.
func makeKey(path string) (k PrivateKey, made bool, err error) {
	if k, err = Generate(); err != nil {
		return PrivateKey{}, false, err
	}
	text, err := k.text()
	if err != nil {
		return PrivateKey{}, false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return PrivateKey{}, false, fmt.Errorf("make the owner's key: %w", err)
	}
	part, err := durable.Create(path, 0o600)
	if err != nil {
		return PrivateKey{}, false, fmt.Errorf("make the owner's key: %w", err)
	}
	// Never committed: its bytes get their name by a link, which unlike a
	// rename does not replace a key that is there.
	defer func() { err = errors.Join(err, part.Close()) }()
	if _, err := part.Write(text); err != nil {
		return PrivateKey{}, false, fmt.Errorf("make the owner's key: %w", err)
	}
	if err := part.Sync(); err != nil {
		return PrivateKey{}, false, fmt.Errorf("make the owner's key: %w", err)
	}
	err = os.Link(part.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		k, err = ReadPrivateKey(path)
		return k, false, err
	}
	if err != nil {
		return PrivateKey{}, false, fmt.Errorf("make the owner's key: %w", err)
	}
	return k, true, nil
}

// keepPublic writes the public half beside the key unless it is there.
func keepPublic(path string, k PublicKey) error {
	if there, err := ReadPublicKey(path); err == nil {
		if !there.Equal(k) {
			return fmt.Errorf("%s holds key %s, the secret key beside it is %s: move one of them away", path, there.ID(), k.ID())
		}
		return nil
	}
	return durable.WriteFile(path, k.Text(), 0o644)
}
