package testrun

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Request is what somebody wants to run, beyond the name of a tier.
type Request struct {
	Run, Skip string   // go test's patterns; "" if none was given
	Packages  []string // for the go command; none: all of the tier
	Flags     []string // other flags for go test
	Verbose   bool     // show all that tests print
	List      bool     // only list the tests
}

// noValue are the flags of go test that stand alone. After another one without
// "=" its value follows.
var noValue = map[string]bool{
	"v": true, "race": true, "short": true, "failfast": true, "cover": true, "benchmem": true,
	"x": true, "n": true, "a": true, "work": true, "fullpath": true, "list": true,
}

// Parse reads the words after a tier's name as people type them: flags of go
// test, packages with or without "./" and "internal/", and names of tests, with
// or without -run.
func Parse(root string, words []string) (Request, error) {
	var r Request
	for i := 0; i < len(words); i++ {
		name, value, joined := strings.Cut(strings.TrimLeft(words[i], "-"), "=")
		if !strings.HasPrefix(words[i], "-") {
			if err := r.word(root, words[i]); err != nil {
				return Request{}, err
			}
			continue
		}
		if !joined && !noValue[name] {
			if i++; i == len(words) {
				return Request{}, fmt.Errorf("%s wants a value", words[i-1])
			}
			value = words[i]
		}
		r.flag(name, value)
	}
	return r, nil
}

func (r *Request) flag(name, value string) {
	switch {
	case name == "run":
		r.Run = either(r.Run, value)
	case name == "skip":
		r.Skip = either(r.Skip, value)
	case name == "v":
		r.Verbose = value != "false"
	case name == "list":
		r.List = true
	case noValue[name] && value == "":
		r.Flags = append(r.Flags, "-"+name)
	default:
		r.Flags = append(r.Flags, "-"+name+"="+value)
	}
}

// word takes a test's name or a package.
func (r *Request) word(root, word string) error {
	base := strings.TrimPrefix(word, "./")
	dir, below := strings.CutSuffix(strings.TrimSuffix(base, "/"), "/...")
	for _, place := range []string{"", "internal", "cmds"} {
		rel := path.Join(place, dir)
		info, err := os.Stat(filepath.Join(root, rel))
		if err != nil || !info.IsDir() {
			continue
		}
		if below {
			rel += "/..."
		}
		r.Packages = append(r.Packages, "./"+rel)
		return nil
	}
	if top := alternatives(word)[0]; topLevel.MatchString(top) {
		r.Run = either(r.Run, word)
		return nil
	}
	return fmt.Errorf("%s is neither a package nor the name of a test: say -run %s for tests with that in their name", word, word)
}

// either joins two patterns of go test.
func either(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "|" + b
}

// alternatives are the parts of a pattern for top-level tests: of each of its
// alternatives what stands before the first slash.
func alternatives(pattern string) []string {
	var tops []string
	for _, one := range split(pattern, '|') {
		tops = append(tops, split(one, '/')[0])
	}
	return tops
}

// split divides a pattern as go test does: not within brackets or parentheses,
// nor after a backslash.
func split(pattern string, at byte) []string {
	var parts []string
	begin, depth := 0, 0
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '[', '(':
			depth++
		case ']', ')':
			depth--
		case at:
			if depth == 0 {
				parts = append(parts, pattern[begin:i])
				begin = i + 1
			}
		}
	}
	return append(parts, pattern[begin:])
}
