package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/bootrecord"
	"viver.lan/internal/testlinux"
)

// profiledImage builds an image with files that lie apart from each other, and returns
// it, its root, and the record of a machine that read the given parts of it, each an
// offset and a length in bytes.
func profiledImage(t *testing.T, reads ...[2]int64) (root, image string, record []byte) {
	t.Helper()
	testlinux.Tool(t, "mksquashfs")
	noise := testlinux.Noise(1200 << 10)
	root = testlinux.Write(t, append(testlinux.Files(t), testlinux.File{Name: "a/0", Data: noise[:384<<10]}, testlinux.File{Name: "a/1", Data: noise[384<<10 : 768<<10]},
		testlinux.File{Name: "a/2", Data: noise[768<<10 : 1152<<10]}))
	image = filepath.Join(t.TempDir(), "image")
	if out, err := viver(t, "image", "build", root, "-o", image, "--lib", testlinux.Lib(t), "--level", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := manifestOf(t, image)
	r := bootrecord.NewRecorder(m.Infohash, m.RootFile().Size)
	for _, read := range reads {
		r.Read(read[0], read[1])
	}
	return root, image, r.Record().Encode()
}

// middles are a block each of the third and the first of those files: they do not
// compress, and lie one behind the other from the beginning of the root disk.
var middles = [][2]int64{{890 << 10, 140 << 10}, {120 << 10, 140 << 10}}

// TestProfileOfARecord: from a record to a list, and from that to the next build of a
// tree that has changed.
func TestProfileOfARecord(t *testing.T) {
	root, image, record := profiledImage(t, middles...)
	dir := t.TempDir()
	file, list := filepath.Join(dir, "boot.record"), filepath.Join(dir, "list")
	if err := os.WriteFile(file, record, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := viver(t, "image", "profile", image, "--record", file, "-o", list).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	comment, paths, _ := strings.Cut(string(text), "\n/")
	if paths != "a/2\n/a/0\n" || !strings.Contains(comment, "Image image (Fake Linux 1, kernel "+testlinux.Release) || !strings.Contains(comment, "2 of ") {
		t.Errorf("profile:\n%s", text)
	}
	if out, err := viver(t, "image", "profile", image, "--record", file).Output(); err != nil || !bytes.Equal(out, text) {
		t.Errorf("to standard output: %v:\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(root, "a/2")); err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(dir, "next")
	out, err := viver(t, "image", "build", root, "-o", next, "--lib", testlinux.Lib(t), "--level", "1", "--profile", list).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("1 files of the profile lie first; 1 are not in the source\n")) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestProfileOfATrialBoot has a script in QEMU's place, which says what a machine
// would: the record. Nothing is left beside the image.
func TestProfileOfATrialBoot(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	_, image, record := profiledImage(t, middles...)
	bin := t.TempDir()
	script := "#!/bin/sh\ntouch " + bin + "/ran\n" +
		`echo '{"kind":"up","data":{"record":"` + base64.StdEncoding.EncodeToString(record) + "\"}}' >&5\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := viver(t, "image", "profile", image)
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || !bytes.HasSuffix(out, []byte("\n/a/2\n/a/0\n")) {
		t.Errorf("%v: %s\n%s", err, said.String(), out)
	}
	if _, err := os.Stat(filepath.Join(bin, "ran")); err != nil {
		t.Error("nothing was booted")
	}
	if left := testlinux.Names(t, filepath.Dir(image)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestProfileRefuses(t *testing.T) {
	_, image, record := profiledImage(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	foreign := bytes.Clone(record)
	foreign[20] ^= 1 // in the infohash
	for _, c := range []struct {
		want string
		args []string
	}{
		{"read no file of the image", []string{"profile", image, "--record", write("empty", string(record))}},
		{"read boot record: it is none", []string{"profile", image, "--record", write("text", "usr/bin/sh\n")}},
		{"want at most", []string{"profile", image, "--record", write("huge", strings.Repeat("x", 1<<20))}},
		{"no such file", []string{"profile", image, "--record", filepath.Join(dir, "gone")}},
		{"it is of image", []string{"profile", image, "--record", write("foreign", string(foreign))}},
		{"is no image", []string{"profile", dir, "--record", write("any", "")}},
		{"line 2", []string{"build", "/", "-o", filepath.Join(dir, "x"), "--profile", write("bad", "/a\nb\n")}},
		{"no such file", []string{"build", "/", "-o", filepath.Join(dir, "x"), "--profile", filepath.Join(dir, "gone")}},
		{"more than 64 MiB", []string{"build", "/", "-o", filepath.Join(dir, "x"), "--profile", "/dev/zero"}},
	} {
		out, err := viver(t, append([]string{"image"}, c.args...)...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("%v: %v, %s; want an error with %q", c.args, err, out, c.want)
		}
	}
}
