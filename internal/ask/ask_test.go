package ask

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestQuestions(t *testing.T) {
	var out strings.Builder
	a := New(strings.NewReader("3\nx\n2\n\n 2, /srv/*.iso 2 1\nhome\n\n\nlab\nmaybe\nno\n\n"), &out)
	ctx := t.Context()
	if n, err := a.Choose(ctx, "Which?", []string{"a", "b"}); n != 1 || err != nil {
		t.Errorf("chose %d, %v", n, err)
	}
	if n, err := a.Choose(ctx, "Which?", []string{"a", "b"}); n != 0 || err != nil {
		t.Errorf("Enter chose %d, %v", n, err)
	}
	if chosen, others, err := a.Several(ctx, "What?", "Numbers", []string{"a", "b"}); !slices.Equal(chosen, []int{1, 0}) || !slices.Equal(others, []string{"/srv/*.iso"}) || err != nil {
		t.Errorf("%v %v %v", chosen, others, err)
	}
	if chosen, others, err := a.Several(ctx, "What?", "Numbers", []string{"a"}); chosen != nil || others != nil || err != nil {
		t.Errorf("Enter behind a mistake: %v %v %v", chosen, others, err)
	}
	named := func(s string) error {
		if s == "" {
			return errors.New("it needs a name")
		}
		return nil
	}
	if s, err := a.Text(ctx, "Name", "", named); s != "lab" || err != nil {
		t.Errorf("%q %v", s, err)
	}
	if yes, err := a.Agree(ctx, "Sure?", true); yes || err != nil {
		t.Errorf("%v %v", yes, err)
	}
	if yes, err := a.Agree(ctx, "Sure?", false); yes || err != nil {
		t.Errorf("Enter: %v %v", yes, err)
	}
	if _, err := a.Agree(ctx, "Sure?", true); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("at the end: %v", err)
	}
	for _, want := range []string{"\nWhich?\n   1  a\n   2  b\nNumber [1]: ", `"3" is none of them; type a number from 1 to 2.`, `"home" is neither a number from 1 to 1`, "it needs a name\n", `"maybe" is neither`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
}

// Whoever names a file does not write to the terminal of who builds an image.
func TestShownNamesAreNoCommands(t *testing.T) {
	var out strings.Builder
	a := New(strings.NewReader("\n"), &out)
	if _, err := a.Choose(t.Context(), "Which?", []string{"/srv/\x1b[2Jü\xff\u009b\n   2  x"}); err != nil {
		t.Fatal(err)
	}
	a.Say("%s\r", "\x07")
	if want := "\nWhich?\n   1  /srv/�[2Jü���   2  x\nNumber [1]: ��\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// Ctrl-C ends a question that nobody answers.
func TestQuestionEndsWithItsContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(writes, 1)
	done := make(chan error)
	go func() {
		_, err := New(r, asked).Agree(ctx, "Sure?", true)
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

type writes chan struct{}

func (w writes) Write(p []byte) (int, error) {
	w <- struct{}{}
	return len(p), nil
}
