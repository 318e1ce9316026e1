package bootmedium

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/media"
	"viver.lan/internal/testlinux"
)

// emptyFile makes a file of so many bytes, none of them written.
func emptyFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// tableOf makes what is a medium as far as its partition table goes.
func tableOf(t *testing.T, size int64) *os.File {
	t.Helper()
	f := emptyFile(t, size)
	cmd := exec.CommandContext(t.Context(), testlinux.Tool(t, "sfdisk"), "--quiet", f.Name())
	cmd.Stdin = strings.NewReader("label: gpt\nstart=2M, size=4M, name=VIVERCONF\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("medium"), 100_000), 7*mib); err != nil {
		t.Fatal(err)
	}
	return f
}

// copyOf fills a stick with what a file has.
func copyOf(f *os.File) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		_, err = io.Copy(w, io.NewSectionReader(f, 0, fi.Size()))
		return err
	}
}

// Saved data survives that another medium is written to its stick, also when that is
// broken off and begun again. Linux's own tools judge the file system and the table.
func TestSavedDataOnTheStick(t *testing.T) {
	testlinux.Tool(t, "mkfs.ext4")
	debugfs := testlinux.Tool(t, "debugfs")
	const size = 1 << 30
	stick := emptyFile(t, size)
	write := func(ctx context.Context, medium *os.File, o WriteOptions) error {
		t.Helper()
		fi, err := medium.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if o.Progress == nil {
			o.Progress = func(string, int64, int64) {}
		}
		o.Note = func(string) {}
		p, err := writer{WriteOptions: o, size: fi.Size(), fill: copyOf(medium)}.writeMedium(ctx, stick, size)
		if err == nil {
			err = p.write(ctx, stick.Name(), size)
		}
		return err
	}
	inside := func(command string) string {
		t.Helper()
		p, ok := findData(stick, size)
		if !ok {
			t.Fatal("there is no saved data")
		}
		return testlinux.Run(t, debugfs, "-w", "-R", command, fmt.Sprintf("%s?offset=%d", stick.Name(), p.Offset))
	}
	partitions := func() int {
		t.Helper()
		testlinux.Run(t, "sfdisk", "--quiet", "--verify", stick.Name())
		list, err := media.Partitions(stick, size)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}

	if err := write(t.Context(), tableOf(t, 12*mib), WriteOptions{Data: 300 * mib}); err != nil {
		t.Fatal(err)
	}
	if n := partitions(); n != 2 {
		t.Errorf("%d partitions, want the medium's and one more", n)
	}
	inside("mkdir viver-data/kept")
	testlinux.Run(t, "e2fsck", "-fn", fmt.Sprintf("%s?offset=%d", stick.Name(), mustFind(t, stick, size).Offset))

	larger := tableOf(t, 20*mib)
	ctx, cancel := context.WithCancel(t.Context())
	if err := write(ctx, larger, WriteOptions{Progress: func(string, int64, int64) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Fatalf("broken off: %v", err)
	}
	if _, err := media.Partitions(stick, size); !errors.Is(err, media.ErrNoPartitions) {
		t.Errorf("half a medium has a partition table: %v", err)
	}
	if err := write(t.Context(), larger, WriteOptions{Data: RestOfStick}); err != nil {
		t.Fatal(err)
	}
	if got := inside("ls viver-data"); !strings.Contains(got, "kept") || partitions() != 2 {
		t.Errorf("after the second medium the data has %q, and there are %d partitions", got, partitions())
	}
	got, want := make([]byte, 12*mib), make([]byte, 12*mib)
	if _, err := stick.ReadAt(got, 2*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := larger.ReadAt(want, 2*mib); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the medium itself has changed: %v", err)
	}

	err := write(t.Context(), tableOf(t, 800*mib), WriteOptions{})
	if err == nil || !strings.Contains(err.Error(), "--erase-data") {
		t.Errorf("a medium that would lie over the data: %v", err)
	}
	if got := inside("ls viver-data"); !strings.Contains(got, "kept") {
		t.Errorf("it was refused, and the data has %q", got)
	}
	if err := write(t.Context(), larger, WriteOptions{EraseData: true}); err != nil {
		t.Fatal(err)
	}
	if p, found := findData(stick, size); found {
		t.Errorf("erased, and found again at %d", p.Offset)
	}
}

func mustFind(t *testing.T, f *os.File, size int64) media.Partition {
	t.Helper()
	p, ok := findData(f, size)
	if !ok {
		t.Fatal("there is no saved data")
	}
	return p
}

func TestWhereSavedDataLies(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		name               string
		stick, medium, ask int64
		at, size           int64
		problem            string
	}{
		{"none", 4 * gib, gib, 0, 0, 0, ""},
		{"at the end", 4 * gib, gib, gib, 3*gib - mib, gib, ""},
		{"the rest, with room for a larger medium", 4 * gib, gib, RestOfStick, gib + gib/2, 2*gib + gib/2 - mib, ""},
		{"the rest of a small stick", gib + 300*mib, gib, RestOfStick, gib, 299 * mib, ""},
		{"no rest", gib + 100*mib, gib, RestOfStick, 0, 0, "it has room for 99 MiB of saved data, which needs 256"},
		{"too much", 4 * gib, gib, 3 * gib, 0, 0, "it has room for 3071 MiB of saved data, which needs 3072"},
		{"too little", 4 * gib, gib, mib, 0, 0, "needs 256 MiB at least"},
	} {
		p, err := planData(emptyFile(t, tt.stick), tt.stick, tt.medium, tt.ask, false)
		switch {
		case tt.problem != "":
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.problem)
			}
		case err != nil || p.at != tt.at || p.size != tt.size || p.keep:
			t.Errorf("%s: %+v, %v, want %d bytes at %d", tt.name, p, err, tt.size, tt.at)
		}
	}
}

// breaks is a stick that is pulled out in the middle of a write, which leaves anything there.
type breaks struct {
	*os.File
	writes int // whole ones before that
}

func (b *breaks) WriteAt(p []byte, at int64) (int, error) {
	if b.writes--; b.writes >= 0 {
		return b.File.WriteAt(p, at)
	}
	_, err := b.File.WriteAt(bytes.Repeat([]byte{0xff}, len(p)), at)
	return 0, errors.Join(err, io.ErrUnexpectedEOF)
}

// Kept data is in a partition table after each step of writing another medium, also where
// only the one that the medium replaces knew it.
func TestKeptDataIsAlwaysInATable(t *testing.T) {
	testlinux.Tool(t, "mkfs.ext4")
	const size = 400 * mib
	stick := emptyFile(t, size)
	medium := tableOf(t, 12*mib)
	w := writer{WriteOptions: WriteOptions{Data: 300 * mib, Note: func(string) {}, Progress: func(string, int64, int64) {}}, size: 12 * mib, fill: copyOf(medium)}
	p, err := w.writeMedium(t.Context(), stick, size)
	if err == nil {
		err = p.write(t.Context(), stick.Name(), size)
	}
	if err != nil {
		t.Fatal(err)
	}
	found := func(when string) {
		t.Helper()
		if got, ok := findData(stick, size); !ok || got.Offset != p.at || got.Size != p.size {
			t.Errorf("%s: found %+v, %v, want %d bytes at %d", when, got, ok, p.size, p.at)
		}
	}
	for _, forgetful := range []bool{false, true} {
		if forgetful {
			if _, err := stick.WriteAt(make([]byte, tableRoom), size-tableRoom); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		broken := w
		broken.Progress = func(string, int64, int64) { cancel() }
		if _, err := broken.writeMedium(ctx, stick, size); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		found("half a medium")
		again, err := w.writeMedium(t.Context(), stick, size)
		if err != nil || !again.keep {
			t.Fatalf("%+v, %v, want to keep the data", again, err)
		}
		found("a medium without its data")
		for writes := range 2 {
			if err := again.addEntry(t.Context(), &breaks{stick, writes}, size); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			found(fmt.Sprintf("pulled out after %d writes", writes))
			if again, err = w.writeMedium(t.Context(), stick, size); err != nil {
				t.Fatal(err)
			}
			found("the medium once more")
		}
		if err := again.write(t.Context(), stick.Name(), size); err != nil {
			t.Fatal(err)
		}
		testlinux.Run(t, "sfdisk", "--quiet", "--verify", stick.Name())
		copied, err := media.BackupPartitions(stick, size)
		if err != nil || len(copied) != 2 {
			t.Errorf("the copy of the table has %+v, %v, want two partitions", copied, err)
		}
	}
}
