//go:build !node

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/ask"
	"viver.lan/internal/bytesize"
	"viver.lan/internal/imagebuild"
	"viver.lan/internal/imagediff"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/sign"
)

func newImageList(env environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [DIRECTORY...]",
		Short: "List the images below a directory",
		Long: `List the images in a directory and up to four levels below, by default the present one. What
is shown is what they say of themselves; viver image verify compares every byte.`,
		Example: `  viver image list images`,
		Args:    args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				given = []string{"."}
			}
			found, err := imagedir.Find(cmd.Context(), given)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(env.stdout, found)
			}
			if len(found) == 0 {
				fmt.Fprintf(env.stderr, "no image in %s; viver image build makes one\n", strings.Join(given, ", "))
				return nil
			}
			w := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "IMAGE\tDISTRIBUTION\tKERNEL\tSIZE\tCREATED\tINFOHASH\tSIGNED BY")
			for _, s := range found {
				if s.Manifest == nil {
					fmt.Fprintf(w, "%s\t%s\n", s.Dir, s.Problem)
					continue
				}
				m := s.Manifest
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.12s\t%s\n", s.Dir, m.Distribution, m.KernelRelease, bytesize.MiB(m.Size()),
					m.Created.Local().Format("2006-01-02 15:04"), m.Infohash, signer(s))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// signer says whose an image is.
func signer(s *imagedir.Summary) string {
	if s.SignedBy == "" {
		return s.Problem
	}
	return s.SignedBy
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func newImageShow(env environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show IMAGE",
		Short:   "Show what an image says of itself",
		Example: `  viver image show images/office`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			s, err := imagedir.Summarize(given[0])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(env.stdout, s)
			}
			return printSummary(env.stdout, s)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printSummary(out io.Writer, s *imagedir.Summary) error {
	m := s.Manifest
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, line := range [][2]string{
		{"image", s.Dir}, {"name", m.Name}, {"distribution", m.Distribution}, {"kernel", m.KernelRelease + ", " + m.Arch},
		{"created", m.Created.Format(time.RFC3339)}, {"format", fmt.Sprint(m.Format)}, {"infohash", m.Infohash.String()}, {"signed by", signer(s)},
		{"size", fmt.Sprintf("%s, %d pieces of %d KiB", bytesize.MiB(m.Size()), s.Pieces, m.PieceLength>>10)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range m.Files {
		if _, err := fmt.Fprintf(out, "%12d  %s  %s\n", f.Size, f.SHA256, f.Name); err != nil {
			return err
		}
	}
	return nil
}

func newImageDiff(env environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Show what image B has otherwise than image A, and what machines with A fetch for it",
		Long: `Show what image B has otherwise than image A: its files, what a machine that has A
fetches for B (the pieces that A has not, at whatever place), and each file of the root
disk that was added (+), removed (-) or changed (~, with both sizes), or has another owner,
other permissions or another time (a).`,
		Example: `  viver image diff images/monday images/tuesday`,
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			bar := newProgress(env.stderr)
			d, err := imagediff.Compare(cmd.Context(), given[0], given[1], func(done, total int64) { bar.show("compare", done, total) })
			bar.end()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(env.stdout, d)
			}
			return printDiff(env.stdout, given[0], given[1], d)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDiff(out io.Writer, a, b string, d *imagediff.Diff) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "A: %s: %s, kernel %s, %s\n", a, d.A.Distribution, d.A.KernelRelease, bytesize.MiB(d.A.Size()))
	fmt.Fprintf(w, "B: %s: %s, kernel %s, %s\n", b, d.B.Distribution, d.B.KernelRelease, bytesize.MiB(d.B.Size()))
	fmt.Fprintf(w, "a machine that has A fetches %s for B: %d of %d pieces\n", bytesize.MiB(d.Fetched), d.Missing, d.Pieces)
	for _, f := range d.Payload {
		if !f.Equals {
			fmt.Fprintf(w, "%s: %d -> %d bytes\n", f.Name, f.SizeA, f.SizeB)
		}
	}
	count := make(map[string]int)
	for _, c := range d.Root {
		count[c.What]++
	}
	fmt.Fprintf(w, "root disk: %d added, %d removed, %d changed, %d with other attributes\n",
		count[imagediff.Added], count[imagediff.Removed], count[imagediff.Changed], count[imagediff.Attributes])
	for _, c := range d.Root {
		switch c.What {
		case imagediff.Added:
			fmt.Fprintf(w, "+ %d\t%q\n", c.SizeB, c.Path)
		case imagediff.Removed:
			fmt.Fprintf(w, "- %d\t%q\n", c.SizeA, c.Path)
		case imagediff.Changed:
			fmt.Fprintf(w, "~ %d -> %d\t%q\n", c.SizeA, c.SizeB, c.Path)
		case imagediff.Attributes:
			fmt.Fprintf(w, "a %d\t%q\n", c.SizeB, c.Path)
		}
	}
	return w.Flush()
}

func newImageSign(env environment) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "sign IMAGE",
		Short: "Sign an image again whose signature is missing or damaged",
		Long: `Sign an image again whose signature is missing or damaged, after every byte was compared with
its description. The key has to be the one the image was built with: its public half is in the
initramfs, and machines take no image of another.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			path, err := keyPath(env, key)
			if err != nil {
				return err
			}
			private, err := sign.ReadPrivateKey(path)
			if err != nil {
				return err
			}
			bar := newProgress(env.stderr)
			m, err := imagedir.Sign(cmd.Context(), given[0], private, func(done, total int64) { bar.show("verify", done, total) })
			bar.end()
			if err != nil {
				return err
			}
			return printImage(env.stdout, given[0], m, private.Public().ID())
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the owner's secret key `file` (default: "+sign.KeyFile+" in ~/.config/viver)")
	return cmd
}

func newImageDelete(env environment) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete IMAGE...",
		Short: "Delete images",
		Long: `Delete image directories, after a question. What is no image is refused, and so is one
with files in it that somebody put there. Machines that run an image are not affected, as long
as others of them have its pieces.`,
		Example: `  viver image delete images/monday
  viver image delete --yes images/monday images/tuesday`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			for _, dir := range given {
				if !yes {
					if err := confirmDelete(cmd.Context(), env, dir); err != nil {
						return err
					}
				}
				if err := imagedir.Remove(dir, imagebuild.ReportFile, imagebuild.OldReportFile); err != nil {
					return err
				}
				fmt.Fprintf(env.stderr, "%s: deleted\n", filepath.Clean(dir))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirmDelete asks whoever sits at the terminal.
func confirmDelete(ctx context.Context, env environment, dir string) error {
	if !canAsk(env) {
		return errors.New("nobody can be asked here, since the input is no terminal: --yes deletes without a question")
	}
	what := dir
	if s, err := imagedir.Summarize(dir); err == nil {
		what = fmt.Sprintf("%s (%s, %s, created %s)", dir, s.Manifest.Distribution, bytesize.MiB(s.Manifest.Size()), s.Manifest.Created.Local().Format("2006-01-02 15:04"))
	}
	yes, err := ask.New(env.stdin, env.stderr).Agree(ctx, fmt.Sprintf("Delete %s?", what), false)
	if err == nil && !yes {
		err = errors.New("not deleted")
	}
	return err
}
