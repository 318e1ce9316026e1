// Package cmdline reads the kernel command line.
//
// It splits the line the way the kernel does (lib/cmdline.c, next_arg): blanks
// separate arguments, double quotes protect blanks. It is not a shell. The
// invariant: any bytes at all give a Line, never a panic and never an error,
// because the command line comes from whoever holds the keyboard.
package cmdline

import (
	"strconv"
	"strings"
)

// Prefix begins every argument that is VIVER's own.
const Prefix = "viver."

// NoSelfTests has the kernel not test its cryptography at each start, algorithm after
// algorithm, before there is a process 1; in FIPS mode it does so anyway. Whoever wants the
// tests says cryptomgr.notests=n behind it.
const NoSelfTests = "cryptomgr.notests"

// Arg is one argument, name=value or a bare name.
type Arg struct {
	Name  string
	Value string
	// Bare is true for an argument with no equals sign.
	Bare bool
}

// Plain reports whether every character of an argument stands for itself in the
// kernel command line and in the scripts of iPXE and GRUB alike.
func Plain(s string) bool { return !strings.ContainsFunc(s, special) }

// special reports whether some boot loader's script could take r for something
// else than itself.
func special(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.,:=/@+%-", r))
}

// MadePlain returns s with an underscore for each character that is not plain.
func MadePlain(s string) string {
	return strings.Map(func(r rune) rune {
		if special(r) {
			return '_'
		}
		return r
	}, s)
}

// Line is a parsed command line in its original order.
type Line []Arg

// Parse splits a command line such as the content of /proc/cmdline.
func Parse(s string) Line {
	var line Line
	for {
		s = strings.TrimLeft(s, " \t\r\n\x00")
		if s == "" {
			return line
		}
		var word string
		word, s = next(s)
		line = append(line, parseArg(word))
	}
}

// next takes one argument off s. A quote that is never closed reaches to the
// end of the line, as in the kernel.
func next(s string) (word, rest string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0):
			return s[:i], s[i:]
		}
	}
	return s, ""
}

func parseArg(word string) Arg {
	name, value, ok := strings.Cut(word, "=")
	if !ok {
		return Arg{Name: unquote(word), Bare: true}
	}
	// The kernel accepts quotes around the value and around the whole argument.
	if strings.HasPrefix(name, `"`) {
		name, value = name[1:], strings.TrimSuffix(value, `"`)
	}
	return Arg{Name: name, Value: unquote(value)}
}

func unquote(s string) string {
	s = strings.TrimPrefix(s, `"`)
	return strings.TrimSuffix(s, `"`)
}

// Lookup returns the last argument called name, because the last one given
// wins on a command line.
func (l Line) Lookup(name string) (Arg, bool) {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].Name == name {
			return l[i], true
		}
	}
	return Arg{}, false
}

// Value returns the value of the last argument called name, or "".
func (l Line) Value(name string) string {
	a, _ := l.Lookup(name)
	return a.Value
}

// All returns the values of every argument called name, in order; console= is
// the usual case.
func (l Line) All(name string) []string {
	var values []string
	for _, a := range l {
		if a.Name == name {
			values = append(values, a.Value)
		}
	}
	return values
}

// Bool reads one argument as a switch, as dracut does: a bare name is on, name=0, no and
// off are off, 1, yes and on are on. ok is false when the value is none of these.
func (a Arg) Bool() (on, ok bool) {
	if a.Bare {
		return true, true
	}
	switch strings.ToLower(a.Value) {
	case "1", "yes", "on", "true":
		return true, true
	case "0", "no", "off", "false":
		return false, true
	}
	return false, false
}

// String quotes the line so that Parse reads it back.
func (l Line) String() string {
	words := make([]string, len(l))
	for i, a := range l {
		word := a.Name
		if !a.Bare {
			word += "=" + a.Value
		}
		if strings.ContainsAny(word, " \t") {
			word = strconv.Quote(word)
		}
		words[i] = word
	}
	return strings.Join(words, " ")
}
