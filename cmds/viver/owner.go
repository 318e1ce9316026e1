package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"viver.lan/internal/imagedir"
	"viver.lan/internal/sign"
)

// configDir is where viver keeps what belongs to its user: $XDG_CONFIG_HOME or
// ~/.config, and where neither is set (cron, containers) the home directory
// that the user database names.
func configDir() (string, error) {
	if dir, err := os.UserConfigDir(); err == nil {
		return filepath.Join(dir, "viver"), nil
	}
	u, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("HOME is not set, and the user database does not help: %w", err)
	}
	if fi, err := os.Stat(u.HomeDir); err != nil || !fi.IsDir() {
		return "", fmt.Errorf("HOME is not set, and user %s has no home directory (%q)", u.Username, u.HomeDir)
	}
	return filepath.Join(u.HomeDir, ".config", "viver"), nil
}

// keyPath is where the owner's key is: as given by --key, else with the
// user's own files.
func keyPath(env environment, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := env.configDir()
	if err != nil {
		return "", fmt.Errorf("find the owner's key: %w; name a file with --key", err)
	}
	return filepath.Join(dir, sign.KeyFile), nil
}

// ownerPublic finds the key to compare images with: the one given by --public,
// else the user's own. A user who never signed has none, which is no error.
func ownerPublic(env environment, given string) (sign.PublicKey, error) {
	if given != "" {
		return sign.ReadPublicKey(given)
	}
	dir, err := env.configDir()
	if err != nil {
		return sign.PublicKey{}, nil
	}
	key, err := sign.ReadPublicKey(filepath.Join(dir, sign.PublicKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return sign.PublicKey{}, nil
	}
	return key, err
}

// publicHelp describes the flag of the same name.
const publicHelp = "public key `file` of the owner whose image it must be (default: your own, " + sign.PublicKeyFile + " in ~/.config/viver, when there is one)"

// hintPublic adds to the error for another owner's image what to do.
func hintPublic(err error, given string) error {
	if err == nil || given != "" || !errors.Is(err, imagedir.ErrNotOwner) {
		return err
	}
	return fmt.Errorf("%w; if you trust that key, name its public half with --public", err)
}
