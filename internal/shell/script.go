package shell

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// lifeline runs a command (its $1) on a machine, with no input, and ends it when its own
// input ends: here that is a pipe, which closes with this end of the connection. ssh
// alone lets a command without a terminal go on for as long as it prints nothing.
// sshd starts it in a process group of its own, which has whatever the command starts.
//
// It writes two marks to the standard error output: one before the command begins, one
// with its exit status. Without them a status of 255 is ssh's or the command's, and
// nobody knows whether the command began.
// What the script's own shell has to say, such as "Terminated", is nobody's.
const lifeline = `trap "" TERM; exec 3<&0 4>&2 </dev/null 2>/dev/null; echo %[1]s >&4; ` +
	`(read x <&3; exec 3<&- 4>&-; kill -TERM 0; sleep %[2]d; kill -KILL 0) >/dev/null & w=$!; ` +
	`(trap - TERM; exec "${SHELL:-/bin/sh}" -c "$1") 2>&4 3<&- 4>&-; e=$?; ` +
	`kill -KILL $w; echo "%[1]s $e" >&4; exit $e`

// script is what ssh is given to run on the machine, whatever shell the user has there.
// The token is of letters and digits.
func script(token, command string) string {
	return fmt.Sprintf("exec /bin/sh -c %s viver %s", Quote(fmt.Sprintf(lifeline, token, int(killAfter.Seconds()))), Quote(command))
}

// Quote makes one word for a shell of a text.
func Quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// marks finds those that lifeline writes.
type marks struct {
	token string // that nobody else knows
	begun bool
	ended bool
	code  int // exit status, once it has ended
}

// take reads a line of the standard error output and returns what of it is no mark, and
// whether that is anything.
func (m *marks) take(line []byte) (rest []byte, is bool) {
	before, status, found := bytes.Cut(line, []byte(m.token))
	if !found {
		return line, true
	}
	if code, err := strconv.ParseUint(string(bytes.TrimSpace(status)), 10, 8); err == nil {
		m.ended, m.code = true, int(code)
	}
	m.begun = true
	return before, len(before) > 0
}

// maxLine is how many bytes of a line are shown as one.
const maxLine = 256 << 10

// lines cuts what a program writes into lines.
type lines struct {
	part []byte // of a line that has not ended
	take func(line []byte)
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, rest, whole := bytes.Cut(l.part, []byte("\n"))
		if !whole && len(line) < maxLine {
			return len(p), nil
		}
		l.take(line)
		l.part = rest
	}
}

// flush gives up what no line's end has followed.
func (l *lines) flush() {
	if len(l.part) > 0 {
		l.take(l.part)
		l.part = nil
	}
}
