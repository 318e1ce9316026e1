package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwner walks the way of a key: made once and told once, used by itself
// afterwards, and another one named beside it.
func TestOwner(t *testing.T) {
	root, lib := tree(t, 1000)
	config, images := filepath.Join(t.TempDir(), "viver"), t.TempDir()
	viver := func(dir string, args ...string) (code int, said string) {
		var out bytes.Buffer
		code = run(context.Background(), environment{args: args, stdout: &out, stderr: &out, executable: os.Executable,
			configDir: func() (string, error) { return dir, nil }})
		return code, out.String()
	}
	expect := func(dir string, wantCode int, wants []string, args ...string) string {
		t.Helper()
		code, said := viver(dir, args...)
		if code != wantCode {
			t.Errorf("viver %v: exit code %d, want %d: %s", args, code, wantCode, said)
		}
		for _, want := range wants {
			if !strings.Contains(said, want) {
				t.Errorf("viver %v: no %q in %s", args, want, said)
			}
		}
		return said
	}
	mine, other := filepath.Join(images, "mine"), filepath.Join(images, "other")
	second := filepath.Join(t.TempDir(), "second.key")
	build := []string{"image", "build", root, "--lib", lib, "--level", "1", "-o"}

	expect(config, exitOK, []string{"Made the owner's key", filepath.Join(config, "owner.key"), "make a backup", "signed by key"}, append(build, mine)...)
	if fi, err := os.Stat(filepath.Join(config, "owner.key")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatal(fi, err)
	}
	if said := expect(config, exitOK, nil, append(build, mine)...); strings.Contains(said, "Made") {
		t.Errorf("told again: %s", said)
	}
	expect(config, exitOK, []string{"Made the owner's key", second}, append(build, other, "--key", second)...)

	if said := expect(config, exitOK, []string{"complete", "signed by key"}, "image", "verify", mine); strings.Contains(said, "not compared") {
		t.Error(said)
	}
	expect(config, exitFailed, []string{"is not an image of this owner: signed by key", "expected key", "--public"}, "image", "verify", other)
	public := strings.TrimSuffix(second, ".key") + ".pub"
	expect(config, exitOK, nil, "image", "verify", other, "--public", public)
	expect(config, exitFailed, []string{"is not an image of this owner"}, "image", "verify", mine, "--public", public)
	expect(config, exitFailed, []string{"not a minisign public key"}, "image", "verify", mine, "--public", second)
	expect(t.TempDir(), exitOK, []string{"not compared with a known key"}, "image", "verify", other)
	expect(config, exitOK, []string{`"trusted": true`, `"signed_by": "`}, "image", "verify", mine, "-o", "json")

	if err := os.Chmod(second, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(config, exitFailed, []string{"chmod 600"}, append(build, other, "--key", second)...)
	var out bytes.Buffer
	code := run(context.Background(), environment{args: append(build, mine), stdout: &out, stderr: &out, executable: os.Executable,
		configDir: func() (string, error) { return "", errors.New("HOME is not set") }})
	if code != exitFailed || !strings.Contains(out.String(), "name a file with --key") {
		t.Errorf("no home: %d: %s", code, out.String())
	}
}

// TestConfigDir asks the user database when the environment is empty.
func TestConfigDir(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "/home/ann")
	if dir, err := configDir(); err != nil || dir != "/home/ann/.config/viver" {
		t.Error(dir, err)
	}
	t.Setenv("HOME", "")
	if dir, err := configDir(); err == nil && (!filepath.IsAbs(dir) || filepath.Base(dir) != "viver") {
		t.Error(dir)
	} else if err != nil && !strings.Contains(err.Error(), "HOME") {
		t.Error(err)
	}
}
