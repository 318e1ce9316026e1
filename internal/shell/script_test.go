package shell

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A command is the same for each shell of Debian that a user may have.
func TestScriptIsTheSameInAllShells(t *testing.T) {
	const command = `printf '%s\n' "it's" "a \$HOME" | cat; echo 'two words' >&2; cat; ls "-x" /dev/null; exit 7`
	for _, shell := range []string{"/bin/sh", "/bin/bash", "busybox sh"} {
		words := append(strings.Fields(shell), "-c", script("TOKEN", command))
		cmd := exec.Command("setsid", append([]string{"-w"}, words...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if state, err := cmd.Process.Wait(); err != nil || state.ExitCode() != 7 {
			t.Errorf("%s: %v, %v, want exit status 7", shell, state, err)
		}
		_ = cmd.Wait() // for what it has written; it was waited for
		if out.String() != "it's\na $HOME\n/dev/null\n" || errs.String() != "TOKEN\ntwo words\nTOKEN 7\n" {
			t.Errorf("%s: it wrote %q and %q", shell, &out, &errs)
		}
	}
}

func TestMarks(t *testing.T) {
	m := marks{token: "T0KEN"}
	for _, step := range []struct {
		line, rest   string
		is           bool
		begun, ended bool
		code         int
	}{
		{"ssh: a warning", "ssh: a warning", true, false, false, 0},
		{"", "", true, false, false, 0},
		{"bannerT0KEN", "banner", true, true, false, 0},
		{"T0KE", "T0KE", true, true, false, 0},
		{"no line's end T0KEN 130", "no line's end ", true, true, true, 130},
	} {
		rest, is := m.take([]byte(step.line))
		if string(rest) != step.rest || is != step.is || m.begun != step.begun || m.ended != step.ended || m.code != step.code {
			t.Errorf("after %q: %q, %v, %+v; want %+v", step.line, rest, is, m, step)
		}
	}
}

// Whatever a machine writes, and in whatever parts it comes: all of it is shown, and only
// the token is believed.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), 3)
	f.Add([]byte("T0KEN\nerror: x\nT0KEN 255\n"), 1)
	f.Add(bytes.Repeat([]byte("x"), maxLine+5), maxLine-1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		var got []byte
		m := marks{token: "T0KEN"}
		l := lines{take: func(line []byte) {
			if len(line) >= maxLine+min(len(data), max(1, size)) && len(line) > 0 {
				t.Errorf("a line of %d bytes", len(line))
			}
			rest, is := m.take(line)
			if !is != (len(rest) == 0 && bytes.Contains(line, []byte("T0KEN"))) {
				t.Errorf("%q is shown: %v", line, is)
			}
			got = append(got, line...)
		}}
		for part := range slices.Chunk(data, max(1, size)) {
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		l.flush()
		if want := bytes.ReplaceAll(data, []byte("\n"), nil); !bytes.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if m.code < 0 || m.code > 255 || m.ended && !m.begun || m.begun && !bytes.Contains(data, []byte("T0KEN")) {
			t.Errorf("%+v", m)
		}
	})
}
