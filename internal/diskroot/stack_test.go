package diskroot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

func digest(t *testing.T, f *os.File) [sha256.Size]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// exits makes an error of a program that ended with a code.
func exits(t *testing.T, code string) error {
	t.Helper()
	return exec.Command("sh", "-c", "exit "+code).Run()
}

// loopable is an empty file of that size for a loop device.
func loopable(t *testing.T, size int64) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make loop devices")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return file
}

// What cryptsetup is asked, and what becomes of its answers. It opens nothing here: qemu-tests has a kernel that can.
func TestCommandsForLUKS(t *testing.T) {
	file := loopable(t, 1<<20)
	locked := volume{stretch: stretch{file, 0, 1 << 20}, number: 3, fsType: typeLUKS, uuid: "L"}
	for _, c := range []struct {
		given   string
		answers []string // exit codes
		keys    []string
		want    string
	}{
		{"secret\n", []string{"2", "2"}, []string{"secret", "secret\n"}, "partition 3: crypto_LUKS: the passphrase does not open it"},
		{"secret", []string{"2"}, []string{"secret"}, "the passphrase does not open it"},
		{"se\ncret\r\n", []string{"4"}, []string{"se\ncret"}, "exit status 4"},
	} {
		var keys []string
		d := newDisk()
		s := &stack{disk: d, passphrase: []byte(c.given), run: func(_ context.Context, files []*os.File, name string, args ...string) ([]byte, error) {
			line := name + " " + strings.Join(args[:len(args)-2], " ")
			if line != "cryptsetup open --type luks --readonly --batch-mode --key-file /dev/fd/3" || args[len(args)-2] != d.loops[locked.stretch].Path {
				t.Errorf("it ran %s %q", line, args)
			}
			key, err := io.ReadAll(io.NewSectionReader(files[0], 0, 100))
			if err != nil {
				t.Error(err)
			}
			keys = append(keys, string(key))
			return nil, exits(t, c.answers[len(keys)-1])
		}}
		err := s.unstack(t.Context(), []volume{locked})
		if err == nil || !strings.Contains(err.Error(), c.want) || !slices.Equal(keys, c.keys) {
			t.Errorf("%q: %v, keys %q", c.given, err, keys)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
	s := &stack{disk: newDisk(), passphrase: []byte("x")}
	if err := s.unstack(t.Context(), []volume{{fsType: "ext4"}}); err == nil || !strings.Contains(err.Error(), "nothing on it is encrypted") {
		t.Errorf("a passphrase for nothing: %v", err)
	}
}

// A LUKS whose header was cut off or damaged, and one without a passphrase, say so.
func TestBadLUKS(t *testing.T) {
	testlinux.Tool(t, "cryptsetup")
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+`; export PATH=$PATH:/usr/sbin:/sbin
truncate -s 32M x; printf secret | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 x -`)
	for name, c := range map[string]struct{ script, passphrase, want string }{
		"no passphrase": {"", "", "crypto_LUKS, encrypted; its passphrase opens it, in a file: --passphrase-file FILE"},
		"cut off":       {"truncate -s 20K x", "secret", "crypto_LUKS: cryptsetup: exit status"},
		"damaged":       {"dd if=/dev/urandom of=x bs=4k seek=1 count=7 conv=notrunc status=none", "secret", "crypto_LUKS: cryptsetup: exit status"},
	} {
		_, err := openDiskWith(t, "cp --sparse=always "+dir+"/x x; "+c.script, Options{Passphrase: []byte(c.passphrase)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		t.Logf("%s: %v", name, err)
	}
}

func TestDevicesOfAStack(t *testing.T) {
	lv := volume{name: "la-b/ho-me", vg: "la-b", lv: "ho-me", number: 0}
	md := volume{number: 2, array: "host:0", name: "2"}
	crypt := volume{number: 3, luks: "AB-1", name: "3"}
	for _, c := range []struct {
		v      volume
		source string
		want   bool
	}{
		{lv, "/dev/mapper/la--b-ho--me", true}, {lv, "/dev/la-b/ho-me", true}, {lv, "/dev/mapper/la-b-ho-me", false}, {md, "/dev/md0", true}, {md, "/dev/md/0", true}, {md, "/dev/md1", false},
		{md, "/dev/sda2", false}, {crypt, "/dev/sda3", false}, {crypt, "LUKS=ab-1", true}, {crypt, "LUKS=", false},
	} {
		if c.v.is(c.source, "/dev/sda") != c.want {
			t.Errorf("%s is %s: %v", c.v, c.source, !c.want)
		}
	}
	got := parseCrypttab([]byte("# x\nsda3_crypt UUID=ab-1 none luks\nother /dev/disk/by-uuid/2 /key\nswap /dev/sda5 /dev/urandom swap\nbad\n"))
	if len(got) != 2 || got["/dev/mapper/sda3_crypt"] != "ab-1" || got["/dev/mapper/other"] != "2" {
		t.Errorf("crypttab: %v", got)
	}
}

// Headers in memory are those of the disk, and as large.
func TestHeaders(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int64{1000, 8<<20 + 1000, 20 << 20} {
		if _, err := file.WriteAt([]byte("end"), 512+size-3); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte("begin"), 512); err != nil {
			t.Fatal(err)
		}
		f, name, err := headers(volume{stretch: stretch{file, 512, size}})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(name)
		if err != nil || int64(len(data)) != size || !bytes.HasPrefix(data, []byte("begin")) || !bytes.HasSuffix(data, []byte("end")) {
			t.Errorf("%d bytes: %d, %v", size, len(data), err)
		}
		f.Close()
	}
}
