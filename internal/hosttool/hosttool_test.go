package hosttool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// What goes wrong on either side of a program is what the caller hears of.
func TestFeed(t *testing.T) {
	none := func(io.Writer) error { return nil }
	some := func(w io.Writer) error {
		_, err := io.WriteString(w, "x")
		return err
	}
	feed := func(ctx context.Context, fill func(io.Writer) error, out io.Writer, script string) error {
		cmd := exec.CommandContext(ctx, "sh", "-c", script)
		cmd.Stdout = out
		return Feed(ctx, cmd, fill)
	}
	var out bytes.Buffer
	if err := feed(t.Context(), some, &out, "cat"); err != nil || out.String() != "x" {
		t.Errorf("out comes %q, %v", out.String(), err)
	}
	broken := errors.New("a module cannot be read")
	if err := feed(t.Context(), func(io.Writer) error { return broken }, &out, "cat"); !errors.Is(err, broken) {
		t.Errorf("a source that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := feed(ctx, none, &out, "cat"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := feed(t.Context(), none, nil, "echo why; exit 1"); err == nil || err.Error() != "sh: exit status 1: why" {
		t.Errorf("a program that fails: %v", err)
	}
	endless := func(w io.Writer) error {
		_, err := io.Copy(w, zeros{})
		return err
	}
	if err := feed(t.Context(), endless, nil, "exit 0"); err == nil || !strings.Contains(err.Error(), "ended before it had read all") {
		t.Errorf("a program that reads nothing: %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if err := feed(t.Context(), some, full, "cat"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestRun(t *testing.T) {
	if err := Run(t.Context(), []string{"WORD=why"}, "sh", "-c", "echo $WORD >&2; exit 3"); err == nil || err.Error() != "sh: exit status 3: why" {
		t.Errorf("a program that fails: %v", err)
	}
	if err := Run(t.Context(), nil, "viver-no-such-program"); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("a program that is not there: %v", err)
	}
	if err := Run(t.Context(), nil, "true"); err != nil {
		t.Error(err)
	}
}
