package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNetnsDocs runs the commands of docs/vfield.md one after the other, in a
// directory that holds the image debian. Those that end in & are ours; the
// next one begins when they serve.
func TestNetnsDocs(t *testing.T) {
	if !onOneLink(t) {
		return
	}
	for _, name := range []string{"nbdinfo", "nbdcopy", "qemu-img"} {
		needs(t, name, "--version")
	}
	page, err := os.ReadFile("../../docs/vfield.md")
	if err != nil {
		t.Fatal(err)
	}
	pic := newPicture(t, 6<<20+4096)
	startOrigin(t, pic)
	work, bin := t.TempDir(), t.TempDir()
	viverProgram(t, bin)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wrapper := "#!/bin/sh\n" + actAs + "=vfield exec " + self + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "vfield"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := os.Symlink(pic.dir, filepath.Join(work, "debian")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(pic.torrent, filepath.Join(pic.dir, "image.torrent")); err != nil {
		t.Fatal(err)
	}

	ran := 0
	for _, block := range strings.Split(string(page), "\n```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		for line := range strings.SplitSeq(block, "\n") {
			ran++
			if ours, ok := strings.CutSuffix(line, " &"); ok {
				cmd := exec.Command("sh", "-ec", "exec "+ours)
				cmd.Dir = work
				start(t, ours, cmd, printing(t, ours)).says("msg=serving")
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			cmd := exec.CommandContext(ctx, "sh", "-ec", line)
			cmd.Dir, cmd.WaitDelay = work, time.Second
			out, err := cmd.CombinedOutput()
			cancel()
			if err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
			t.Logf("$ %s\n%s", line, out)
		}
	}
	if ran < 12 {
		t.Errorf("found %d commands only", ran)
	}
	copied, err := os.ReadFile(filepath.Join(work, "root.squashfs"))
	if err != nil || string(copied) != string(pic.files["root.squashfs"]) {
		t.Errorf("root.squashfs is not what was copied: %d bytes, %v", len(copied), err)
	}
}
