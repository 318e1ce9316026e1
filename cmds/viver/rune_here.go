package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"viver.lan/internal/control"
	"viver.lan/internal/runes"
	noderunes "viver.lan/internal/runner"
)

// runeHere is a rune on this machine: what the boot made of it, and how it is since.
type runeHere struct {
	control.RuneResult
	Roles    []string                 `json:"roles,omitempty"` // of its own that this machine holds
	Services []noderunes.ServiceState `json:"services,omitempty"`
	Hooks    []noderunes.HookState    `json:"hooks,omitempty"`
}

// runesHere reads what uinit and @vrune left in a directory.
func runesHere(dir string) ([]runeHere, error) {
	results, err := control.ReadRunes(filepath.Join(dir, filepath.Base(control.RunesBootFile)))
	if err != nil {
		return nil, err
	}
	state, err := noderunes.ReadState(filepath.Join(dir, noderunes.StateFile))
	if err != nil {
		return nil, err
	}
	list := make([]runeHere, len(results))
	for i, r := range results {
		list[i].RuneResult = r
	}
	for _, s := range state.Runes {
		i := len(list) - 1
		for i >= 0 && list[i].Rune != s.Name { // a broken one of the name is before the built-in one
			i--
		}
		if i < 0 { // it has come since the boot
			i = len(list)
			list = append(list, runeHere{RuneResult: control.RuneResult{RuneOutcome: control.RuneOutcome{Rune: s.Name}}})
		}
		r := &list[i]
		if o := runes.Outcome(r.Outcome); o != runes.Broken && o != runes.Degraded {
			r.Outcome, r.Reason = string(s.Outcome), s.Reason
		} else if s.Reason != "" {
			r.Reason += "; " + s.Reason
		}
		r.Files, r.Services, r.Hooks = append(r.Files, s.Files...), s.Services, s.Hooks
		for _, name := range state.Held {
			if name.Rune == s.Name {
				r.Roles = append(r.Roles, name.Role)
			}
		}
	}
	return list, nil
}

// runeSentence is what became of a rune, for people.
func runeSentence(r control.RuneOutcome) string {
	return cmp.Or(r.Rune, "one") + " is " + r.Outcome + ": " + r.Reason
}

func hookWords(h noderunes.HookState) string {
	name := string(h.Moment)
	if h.Role != "" {
		name += " " + h.Role
	}
	return fmt.Sprintf("%s: %s in %.1f s", name, cmp.Or(h.Reason, "done"), h.Seconds)
}

func writeRunes(w io.Writer, list []runeHere) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "rune\toutcome\troles\tservices\tlast hook\twhy, or what for")
	for _, r := range list {
		var services []string
		for _, s := range r.Services {
			services = append(services, s.Name+" "+s.State)
		}
		hook := "-"
		if n := len(r.Hooks); n > 0 {
			hook = hookWords(r.Hooks[n-1])
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(r.Rune, "-"), r.Outcome, cmp.Or(strings.Join(r.Roles, ", "), "-"),
			cmp.Or(strings.Join(services, ", "), "-"), hook, cmp.Or(r.Reason, r.Description))
	}
	return t.Flush()
}

// writeProblems shows what is wrong with no rune in particular: settings, users, groups.
func writeProblems(w io.Writer, dir string) error {
	state, err := noderunes.ReadState(filepath.Join(dir, noderunes.StateFile))
	if err != nil {
		return err
	}
	for _, problem := range append(state.Problems, state.Accounts...) {
		fmt.Fprintln(w, problem)
	}
	return nil
}

// shownOutput is how many lines of what a hook printed are shown.
const shownOutput = 10

// writeRune shows all that is known of a rune, the last output of its hooks too.
func writeRune(w io.Writer, dir string, r runeHere) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "rune\t%s\n", strings.TrimSuffix(r.Rune+": "+r.Description, ": "))
	fmt.Fprintf(t, "outcome\t%s\n", strings.TrimSuffix(r.Outcome+": "+r.Reason, ": "))
	for _, role := range r.Roles {
		fmt.Fprintf(t, "role\t%s\n", role)
	}
	for _, s := range r.Services {
		about := s.State
		if s.Restarts > 0 {
			about += fmt.Sprintf(", started again %d times", s.Restarts)
		}
		if s.Reason != "" {
			about += ": " + s.Reason
		}
		fmt.Fprintf(t, "service\t%s (%s) is %s\n", s.Name, s.Unit, about)
	}
	for _, f := range r.Files {
		fmt.Fprintf(t, "file\t%s\n", f)
	}
	for _, h := range r.Hooks {
		fmt.Fprintf(t, "hook\t%s\n", hookWords(h))
		output, err := os.ReadFile(filepath.Join(dir, "hooks", r.Rune+"."+string(h.Moment)+".log"))
		if err != nil {
			continue // it may not be there
		}
		lines := strings.Split(strings.TrimSpace(string(output)), "\n")
		for _, line := range lines[max(0, len(lines)-shownOutput):] {
			fmt.Fprintf(t, "\t  %s\n", line)
		}
	}
	return t.Flush()
}
