package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/ether"
)

// File is the name of a key's file: PKCS #8 in PEM (RFC 8410), as openssl(1)
// reads it.
const File = "identity.key"

// FileOf is the name of the file for the key of the machine with this MAC address
// on a disk, which may be a copy of another machine's.
func FileOf(mac ether.MAC) string { return fmt.Sprintf("identity-%x.key", mac[:]) }

// SequenceOf is the file, beside that of a key, for the number of its last start.
func SequenceOf(file string) string { return strings.TrimSuffix(file, ".key") + ".sequence" }

const (
	pemType = "PRIVATE KEY"
	maxFile = 4096 // bytes
)

var errFile = errors.New("not the key of a machine")

// Parse reads the content of a key's file.
func Parse(text []byte) (Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return Key{}, errFile
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", errFile, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("%w: of another kind", errFile)
	}
	return Key{private}, nil
}

// Text returns the content of the key's file.
func (k Key) Text() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode this machine's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// Read reads a key's file, which has to be a regular one that nobody but its
// owner may use. The error is fs.ErrNotExist when there is none.
func Read(path string) (Key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Key{}, fmt.Errorf("read this machine's key: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return Key{}, fmt.Errorf("read this machine's key: %w", err)
	case !fi.Mode().IsRegular():
		return Key{}, fmt.Errorf("%s: %w", path, errFile)
	case fi.Mode().Perm()&0o077 != 0:
		return Key{}, fmt.Errorf("%s may be used by others (mode %04o), who could speak as this machine", path, fi.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Key{}, fmt.Errorf("read this machine's key: %w", err)
	}
	k, err := Parse(text)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// Write keeps the key in a file that only its owner reads.
func (k Key) Write(path string) error {
	text, err := k.Text()
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}

// Open reads the key in path, and makes one when there is none.
func Open(path string) (k Key, made bool, err error) {
	if k, err = Read(path); !errors.Is(err, fs.ErrNotExist) {
		return k, false, err
	}
	if k, err = Generate(); err != nil {
		return Key{}, false, err
	}
	return k, true, k.Write(path)
}
