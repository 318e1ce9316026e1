package bootmedium

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"

	"viver.lan/internal/hosttool"
)

// stick is what a medium is written to, as far as its partition table goes.
type stick interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// table is the beginning and the end of a stick, where its partition table and the copy
// of that lie. sfdisk changes them in a file, because it writes both in an order of its
// own and in several runs: broken off on the stick, none of them might know saved data.
type table struct {
	size       int64 // of the stick
	begin, end []byte
}

func readTable(r io.ReaderAt, size int64) (table, error) {
	t := table{size: size, begin: make([]byte, head), end: make([]byte, tableRoom)}
	return t, t.read(r)
}

func (t table) read(r io.ReaderAt) error {
	if _, err := r.ReadAt(t.begin, 0); err != nil {
		return err
	}
	_, err := r.ReadAt(t.end, t.size-tableRoom)
	return err
}

// edit runs sfdisk on a file as large as the stick, with nothing between beginning and end.
func (t table) edit(ctx context.Context, script string, args ...string) (err error) {
	sfdisk, err := hosttool.Find("sfdisk")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "viver-table-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := f.Truncate(t.size); err != nil {
		return err
	}
	if _, err := f.WriteAt(t.begin, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(t.end, t.size-tableRoom); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, sfdisk, append(append([]string{"--quiet", "--wipe", "never"}, args...), f.Name())...)
	if err := hosttool.Feed(ctx, cmd, func(w io.Writer) error { _, err := io.WriteString(w, script); return err }); err != nil {
		return err
	}
	return t.read(f)
}

func (t table) writeBegin(out stick) error { return writeThrough(out, t.begin, 0) }
func (t table) writeEnd(out stick) error   { return writeThrough(out, t.end, t.size-tableRoom) }

// writeThrough returns when the stick has it, so that what is written next comes later.
func writeThrough(out stick, data []byte, at int64) error {
	if _, err := out.WriteAt(data, at); err != nil {
		return err
	}
	return out.Sync()
}
