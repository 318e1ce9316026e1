// Package ask asks a person questions on a terminal, one line each: numbered answers and
// texts, with the answer that Enter gives in brackets.
//
// It moves no cursor and draws nothing, so it works on a serial console, in a screen
// reader and in a test. What is not understood is asked again. The invariant: a question has an
// answer that was typed or shown, or an error.
package ask

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// maxLine is more than anybody types, in bytes.
const maxLine = 4096

// ErrNoAnswer says that the terminal was closed.
var ErrNoAnswer = errors.New("there is nobody to answer: the input has ended")

// Asker asks whoever reads what it writes.
type Asker struct {
	in   *bufio.Reader
	file *os.File // what in reads, if it can be waited for
	out  io.Writer
}

// New returns who asks on out and reads the answers from in.
func New(in io.Reader, out io.Writer) *Asker {
	file, _ := in.(*os.File)
	return &Asker{bufio.NewReaderSize(in, maxLine), file, out}
}

// Say writes a line that is no question.
func (a *Asker) Say(format string, args ...any) {
	fmt.Fprintln(a.out, strings.Map(shown, fmt.Sprintf(format, args...)))
}

// shown is what a terminal gets of a rune: names of files and of disks are a stranger's, and would clear the
// screen or type for whoever sits there.
func shown(r rune) rune {
	if r == '\n' || unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

// Choose asks for one of several answers, and returns its index. Enter is the first.
func (a *Asker) Choose(ctx context.Context, question string, answers []string) (int, error) {
	a.list(question, answers)
	for {
		line, err := a.line(ctx, "Number [1]: ")
		if err != nil {
			return 0, err
		}
		if line == "" {
			return 0, nil
		}
		if n, err := strconv.Atoi(line); err == nil && n >= 1 && n <= len(answers) {
			return n - 1, nil
		}
		a.Say("%q is none of them; type a number from 1 to %d.", line, len(answers))
	}
}

// Several asks for any of the answers, by their numbers, and for others that begin with a slash.
// Enter is none. A word that is neither is asked for again.
func (a *Asker) Several(ctx context.Context, question, prompt string, answers []string) (chosen []int, others []string, err error) {
	a.list(question, answers)
	for {
		line, err := a.line(ctx, prompt+" [none]: ")
		if err != nil {
			return nil, nil, err
		}
		chosen, others, wrong := several(line, len(answers))
		if wrong == "" {
			return chosen, others, nil
		}
		a.Say("%q is neither a number from 1 to %d nor a path that begins with a slash.", wrong, len(answers))
	}
}

// several divides a line into numbers, as indexes, and paths; wrong is the first word that is neither.
func several(line string, most int) (chosen []int, others []string, wrong string) {
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		n, err := strconv.Atoi(word)
		switch {
		case err == nil && n >= 1 && n <= most:
			if !slices.Contains(chosen, n-1) {
				chosen = append(chosen, n-1)
			}
		case strings.HasPrefix(word, "/"):
			others = append(others, word)
		default:
			return nil, nil, word
		}
	}
	return chosen, others, ""
}

// Text asks for a text; Enter is what is shown as usual, "" if there is none. check says what is wrong with one.
func (a *Asker) Text(ctx context.Context, question, usual string, check func(string) error) (string, error) {
	prompt := question + ": "
	if usual != "" {
		prompt = fmt.Sprintf("%s [%s]: ", question, usual)
	}
	for {
		line, err := a.line(ctx, prompt)
		if err != nil {
			return "", err
		}
		if line == "" {
			line = usual
		}
		if err := check(line); err != nil {
			a.Say("%v", err)
			continue
		}
		return line, nil
	}
}

// Agree asks for yes or no; usual is what Enter means.
func (a *Asker) Agree(ctx context.Context, question string, usual bool) (bool, error) {
	answers := "yes, [no]"
	if usual {
		answers = "[yes], no"
	}
	for {
		line, err := a.line(ctx, fmt.Sprintf("%s (%s): ", question, answers))
		if err != nil {
			return false, err
		}
		switch strings.ToLower(line) {
		case "":
			return usual, nil
		case "yes", "y":
			return true, nil
		case "no", "n":
			return false, nil
		}
		a.Say("%q is neither yes nor no.", line)
	}
}

func (a *Asker) list(question string, answers []string) {
	a.Say("\n%s", question)
	for i, answer := range answers {
		a.Say("  %2d  %s", i+1, strings.ReplaceAll(answer, "\n", string(unicode.ReplacementChar))) // no line looks like another answer
	}
}

// line shows a prompt and reads a line.
func (a *Asker) line(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(a.out, prompt)
	if a.in.Buffered() == 0 && a.file != nil {
		if err := wait(ctx, a.file); err != nil {
			return "", err
		}
	}
	line, err := a.in.ReadString('\n')
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == io.EOF:
		return "", ErrNoAnswer
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// wait waits until a file has something to read or ctx ends: a read of a terminal would outlast it.
func wait(ctx context.Context, f *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	const forever = -1 // the reason is on the terminal, and ctx ends it
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}, forever)
		if !errors.Is(err, unix.EINTR) {
			return errors.Join(err, ctx.Err())
		}
	}
}
