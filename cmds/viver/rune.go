package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/runes"
)

func newRune(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rune",
		Short: "Runes: what makes machines with one image different",
	}
	cmd.AddCommand(newRuneList(env), newRuneShow(env), newRuneCheck(env), newRuneNew(env), newRuneAdd(env), newRuneRemove(env), newRuneSet(env), newRuneHistory(env), newRuneRollback(env))
	return cmd
}

func newRuneList(env environment) *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "On a node, what became of each rune; elsewhere, the built-in ones",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			on, err := runesHere(control.RunDir)
			if err == nil {
				return o.print(env.stdout, on, func(w io.Writer) error {
					return errors.Join(writeRunes(w, on), writeProblems(w, control.RunDir))
				})
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			bundles, err := builtinRunes()
			if err != nil {
				return err
			}
			list := describe(bundles)
			return o.print(env.stdout, list, func(w io.Writer) error { return writeBuiltin(w, list) })
		},
	}
	o.register(cmd)
	return cmd
}

func describe(bundles []runes.Bundle) []runes.Description {
	list := make([]runes.Description, len(bundles))
	for i, b := range bundles {
		list[i] = b.Describe()
	}
	return list
}

func writeBuiltin(w io.Writer, list []runes.Description) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "rune\torder\twhat for")
	for _, d := range list {
		fmt.Fprintf(t, "%s\t%d\t%s\n", d.Name, d.Order, d.Description)
	}
	return t.Flush()
}

func newRuneShow(env environment) *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "show {NAME | DIR}",
		Short: "Show what a rune says of itself and, on a node, what became of it",
		Example: `  viver rune show hostname
  viver rune show ./web-farm`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			if on, err := runesHere(control.RunDir); err == nil && !isFolder(given[0]) {
				i := slices.IndexFunc(on, func(r runeHere) bool { return r.Rune == given[0] })
				if i < 0 {
					return fmt.Errorf("this node has no rune %q; viver rune list shows those it has", given[0])
				}
				return o.print(env.stdout, on[i], func(w io.Writer) error { return writeRune(w, control.RunDir, on[i]) })
			}
			b, err := findRune(given[0])
			if err != nil {
				return err
			}
			d := b.Describe()
			return o.print(env.stdout, d, func(w io.Writer) error { return writeDescription(w, d) })
		},
	}
	o.register(cmd)
	return cmd
}

// isFolder reports whether a rune is given as its folder. A name alone is a built-in one's.
func isFolder(given string) bool {
	if strings.Contains(given, "/") {
		return true
	}
	_, err := os.Stat(given)
	return err == nil
}

// findRune reads the rune of a folder, or the built-in one of a name.
func findRune(given string) (runes.Bundle, error) {
	if isFolder(given) {
		return runes.LoadDir(given)
	}
	bundles, err := builtinRunes()
	if err != nil {
		return runes.Bundle{}, err
	}
	if i := slices.IndexFunc(bundles, func(b runes.Bundle) bool { return b.Name == given }); i >= 0 {
		return bundles[i], nil
	}
	return runes.Bundle{}, fmt.Errorf("there is no folder and no built-in rune %q; viver rune list shows the built-in ones", given)
}

func writeDescription(w io.Writer, d runes.Description) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "rune\t%s: %s\n", d.Name, d.Description)
	fmt.Fprintf(t, "order\t%d\n", d.Order)
	if d.When != "" {
		fmt.Fprintf(t, "used when\t%s\n", d.When)
	}
	for _, r := range d.Requires {
		fmt.Fprintf(t, "requires\t%s\n", r)
	}
	for _, f := range d.Files {
		about := f.Mode
		if f.Link != "" {
			about = "-> " + f.Link
		}
		switch {
		case f.Live:
			about += ", kept current"
		case f.Template:
			about += ", a template"
		}
		if len(f.Roles) > 0 {
			about += "; for the role " + strings.Join(f.Roles, ", ")
		}
		if f.When != "" {
			about += "; when " + f.When
		}
		fmt.Fprintf(t, "file\t%s\t%s\n", f.Path, about)
	}
	for _, r := range d.Roles {
		fmt.Fprintf(t, "role\t%s\n", r)
	}
	for _, s := range d.Services {
		fmt.Fprintf(t, "service\t%s\n", s)
	}
	for _, u := range d.Users {
		fmt.Fprintf(t, "user\t%s\n", u)
	}
	for _, g := range d.Groups {
		fmt.Fprintf(t, "group\t%s\n", g)
	}
	for _, key := range slices.Sorted(maps.Keys(d.Settings)) {
		fmt.Fprintf(t, "setting\t%s: %s\n", key, d.Settings[key])
	}
	for _, h := range d.Hooks {
		fmt.Fprintf(t, "hook\t%s\n", h)
	}
	return t.Flush()
}
