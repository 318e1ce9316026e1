package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/imagediff"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
)

// TestImagesAreValues builds an image onto another, and lists, shows, compares, signs and
// deletes them.
func TestImagesAreValues(t *testing.T) {
	root, lib := tree(t, 600_000)
	dir := t.TempDir()
	monday, tuesday := filepath.Join(dir, "monday"), filepath.Join(dir, "tuesday")
	ok := func(args ...string) string {
		t.Helper()
		cmd := viver(t, args...)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("viver %s: %v: %s", strings.Join(args, " "), err, errs.String())
		}
		return string(out)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		out, err := viver(t, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("viver %s: %v: %s; want %q", strings.Join(args, " "), err, out, want)
		}
	}
	if out, err := viver(t, "image", "list", dir).CombinedOutput(); err != nil || !strings.Contains(string(out), "no image in "+dir) {
		t.Errorf("%v: %s", err, out)
	}
	ok("image", "build", root, "-o", monday, "--lib", lib, "--level", "1")
	if err := os.WriteFile(filepath.Join(root, "etc/motd"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok("image", "build", root, "-o", tuesday, "--lib", lib, "--level", "1", "--onto", monday)
	ok("image", "verify", tuesday)

	list := ok("image", "list", dir)
	if words := strings.Join(strings.Fields(list), " "); !strings.HasPrefix(words, "IMAGE DISTRIBUTION ") || !strings.Contains(words, monday+" Fake Linux 1 6.1.0-9-test 0.6 MiB ") || !strings.Contains(words, " "+tuesday+" Fake") {
		t.Errorf("list:\n%s", list)
	}
	var found []imagedir.Summary
	if err := json.Unmarshal([]byte(ok("image", "list", "--json", dir)), &found); err != nil || len(found) != 2 || found[0].SignedBy == "" || found[1].Manifest.Name != "tuesday" {
		t.Errorf("%+v, %v", found, err)
	}
	shown := ok("image", "show", tuesday)
	for _, want := range []string{"name          tuesday\n", "kernel        6.1.0-9-test, amd64\n", "pieces of 128 KiB\n", "  vmlinuz\n", "signed by     " + found[1].SignedBy + "\n"} {
		if !strings.Contains(shown, want) {
			t.Errorf("show:\n%s\nwant %q", shown, want)
		}
	}
	var one imagedir.Summary
	if err := json.Unmarshal([]byte(ok("image", "show", "--json", tuesday)), &one); err != nil || one.Manifest.Infohash != found[1].Manifest.Infohash {
		t.Errorf("%+v, %v", one, err)
	}
	difference := ok("image", "diff", monday, tuesday)
	for _, want := range []string{"a machine that has A fetches 0.", "root disk: 1 added, 0 removed, 0 changed, ", "+ 6\t\"/etc/motd\"\n"} {
		if !strings.Contains(difference, want) {
			t.Errorf("diff:\n%s\nwant %q", difference, want)
		}
	}
	var d imagediff.Diff
	if err := json.Unmarshal([]byte(ok("image", "diff", "--json", monday, tuesday)), &d); err != nil || d.Missing == 0 || d.Missing >= d.Pieces || d.B.Name != "tuesday" {
		t.Errorf("%+v, %v", d, err)
	}

	if err := os.Remove(filepath.Join(tuesday, manifest.Signature)); err != nil {
		t.Fatal(err)
	}
	if list := ok("image", "list", dir); !strings.Contains(list, "not signed") {
		t.Errorf("list:\n%s", list)
	}
	fails("is not signed", "image", "verify", tuesday)
	ok("image", "sign", tuesday)
	ok("image", "verify", tuesday)

	fails("--yes deletes without a question", "image", "delete", monday)
	fails("is no image", "image", "delete", "--yes", root)
	ok("image", "delete", "--yes", monday, tuesday)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
