//go:build !node

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/sourcelist"
	"viver.lan/internal/testlinux"
)

// openTerminal opens a pseudo-terminal: what a person has, and the program.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Skip(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// answers runs `viver image build` on a terminal and types an answer behind each of the prompts. It returns all that the
// terminal showed.
func answers(t *testing.T, ctx context.Context, find *finder, args []string, typed ...[2]string) (code int, shown string) {
	t.Helper()
	person, program := openTerminal(t)
	installed := t.TempDir()
	if err := errors.Join(os.Symlink(testlinux.Lib(t), filepath.Join(installed, "lib")), os.WriteFile(filepath.Join(installed, "viver"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	executable := func() (string, error) { return filepath.Join(installed, "viver"), nil }
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, environment{args: args, stdin: program, stdout: program, stderr: program, executable: executable, configDir: configDir, find: find})
		program.Close() // the person's reads end
	}()
	var all bytes.Buffer
	from := 0
	buf := make([]byte, 4096)
	for {
		n, err := person.Read(buf)
		all.Write(buf[:n])
		if len(typed) > 0 {
			if at := strings.Index(all.String()[from:], typed[0][0]); at >= 0 {
				from += at + len(typed[0][0])
				if _, err := io.WriteString(person, typed[0][1]); err != nil {
					t.Fatal(err)
				}
				typed = typed[1:]
			}
		}
		if err != nil {
			break
		}
	}
	code = <-done
	if len(typed) > 0 {
		t.Fatalf("it never asked %q:\n%s", typed[0][0], all.String())
	}
	return code, strings.ReplaceAll(all.String(), "\r\n", "\n")
}

// A person who knows no command gets an image and a medium, and the commands that do the same.
func TestAskedOnATerminal(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	testlinux.Tool(t, "xorriso")
	root := testlinux.Write(t, append(testlinux.Files(t), testlinux.File{Name: "home/anna[1]/noise", Data: testlinux.Noise(2 << 20)}))
	dir := filepath.Join(t.TempDir(), "room 1")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "lab")
	find := &finder{
		places: func(context.Context, string) ([]sourcelist.Place, []string, error) {
			return []sourcelist.Place{{Source: "/nowhere", Name: "Own", On: "this machine"}, {Source: root, Name: "Lab", On: "a disk"}}, []string{"/dev/sdx was not looked at"}, nil
		},
		sticks: func(context.Context) ([]sourcelist.Stick, error) {
			return []sourcelist.Stick{{Path: "/dev/sdy", On: "Ultra"}}, nil
		},
	}
	code, shown := answers(t, t.Context(), find, []string{"image", "build"},
		[2]string{"run?", "2\n"}, [2]string{"[none]: ", "9\n"}, [2]string{"[none]: ", "1 /srv/*.iso\n"}, [2]string{"[lab]: ", dir + "\n"}, [2]string{"[lab]: ", image + "\n"}, [2]string{"boot from?", "\n"}, [2]string{"Go on?", "yes\n"})
	if code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, shown)
	}
	commands := fmt.Sprintf("  viver image build %s -o '%s' --exclude '/home/anna\\[1]' --exclude '/srv/*.iso'\n  viver medium build '%[2]s' -o '%[2]s.iso'\n", root, image)
	for _, want := range []string{
		"   1  /nowhere: Own, on this machine\n", "   2  " + root + ": Lab, on a disk\n", "/dev/sdx was not looked at\n", "1  /home/anna[1], 2.0 MiB, a person's files\n", `"9" is neither a number`,
		dir + " exists and is no image", "2  a stick that is here: /dev/sdy, Ultra (everything on it is lost)", "This will be done:\n" + commands, "without questions:\n" + commands,
		"warning: --exclude /srv/*.iso matches no file",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the terminal lacks %q", want)
		}
	}
	if strings.Contains(shown, "--exclude /home/anna\\[1] matches no file") {
		t.Error("a directory that was chosen is in the image")
	}
	if t.Failed() {
		t.Log(shown)
	}
	for _, args := range [][]string{{"image", "verify", image}, {"image", "explain", image, "/home/anna[1]"}} {
		if out, err := viver(t, args...).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if _, err := os.Stat(image + ".iso"); err != nil {
		t.Error(err)
	}
}

// Whoever says no, or nothing more, has changed nothing; a stick needs a yes that is typed.
func TestAskedAndDeclined(t *testing.T) {
	root := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(root, []byte("never opened"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	find := &finder{
		places: func(context.Context, string) ([]sourcelist.Place, []string, error) {
			return []sourcelist.Place{{Source: "/dev/sdv", On: "Ultra", Unseen: true}, {Source: "/dev/sdw", On: "Empty", Unseen: true}}, nil, nil
		},
		look: func(_ context.Context, p sourcelist.Place, _ string) ([]sourcelist.Place, []string, error) {
			if p.Source != "/dev/sdv" {
				return nil, nil, nil
			}
			return []sourcelist.Place{{Source: root, Root: "2:@", Locked: true}}, nil, nil
		},
		sticks: func(context.Context) ([]sourcelist.Stick, error) {
			return []sourcelist.Stick{{Path: "/dev/sdy", On: "Ultra"}}, nil
		},
	}
	code, shown := answers(t, t.Context(), find, []string{"image", "build"},
		[2]string{"run?", "2\n"}, [2]string{"run?", "1\n"}, [2]string{"passphrase: ", "/nowhere\n"}, [2]string{"passphrase: ", "/etc/hostname\n"}, [2]string{"[none]: ", "\n"}, [2]string{"[lab]: ", "-lab\n"}, [2]string{"[lab]: ", "\n"}, [2]string{"boot from?", "2\n"}, [2]string{"Go on?", "\n"})
	for _, want := range []string{"1  /dev/sdv, Ultra: can be plugged in, so it was not looked at; choose it to look\n", "Looking at /dev/sdw ...\n/dev/sdw has no installed Linux.\n", "Looking at /dev/sdv ...\nIt has " + root, "viver image build " + root + " -o lab --root 2:@ --passphrase-file /etc/hostname\n", "viver medium write lab.iso /dev/sdy\n", "Everything on /dev/sdy will be lost: Ultra.", "Nothing was done."} {
		if code != exitOK || !strings.Contains(shown, want) {
			t.Errorf("exit code %d, it lacks %q:\n%s", code, want, shown)
		}
	}
	code, shown = answers(t, t.Context(), find, []string{"image", "build"}, [2]string{"run?", "\x04"})
	if code != exitFailed || !strings.Contains(shown, "nobody to answer") {
		t.Errorf("at the end of the input: exit code %d:\n%s", code, shown)
	}
	if left := testlinux.Names(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Without a terminal nobody waits for answers.
func TestNotAskedWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	code := run(t.Context(), environment{args: []string{"image", "build"}, stdin: strings.NewReader("1\n"), stdout: &out, stderr: &out, executable: os.Executable, configDir: configDir})
	if code != exitUsage || !strings.Contains(out.String(), "it needs a SOURCE, such as / for") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}
