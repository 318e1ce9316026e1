package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/mountinfo"
	"viver.lan/internal/upper"
)

// mostFiles is how many files and directories viver doctor files names.
const mostFiles = 10

func newDoctorFiles(env environment) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "files",
		Short: "Name the largest of the files that were written to this node",
		Long: `The files that are written to a node lie in its memory, or on a disk with saved data,
over those of the image. This names the ten that take most of the room, with the time
since each was last written, and the ten directories with most files: their number has
a limit too. A file of the image that was changed is counted whole, once it is written to.

"viver status" says how much room is left.`,
		Example: `  viver doctor files
  viver doctor files -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := writtenFiles(cmd.Context())
			if err != nil {
				return err
			}
			return out.print(env.stdout, u, func(w io.Writer) error { return writeUsage(w, u, time.Now()) })
		},
	}
	out.register(cmd)
	return cmd
}

// writtenFiles looks at what was written to this machine.
func writtenFiles(ctx context.Context) (*upper.Usage, error) {
	mounts, err := mountinfo.Of(1)
	if err != nil {
		return nil, err
	}
	dir, err := upper.Dir(mounts)
	if err != nil {
		return nil, err
	}
	return upper.Measure(ctx, dir, mostFiles)
}

func writeUsage(w io.Writer, u *upper.Usage, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%d files and directories, %s\n", u.Files, megabytes(uint64(u.Bytes)))
	if u.Skipped > 0 {
		fmt.Fprintf(t, "%d could not be read\n", u.Skipped)
	}
	fmt.Fprint(t, "\nMB\tWRITTEN\tLARGEST FILES\n")
	for _, f := range u.Largest {
		fmt.Fprintf(t, "%.1f\t%s ago\t%q\n", float64(f.Bytes)/1e6, max(now.Sub(f.Changed), 0).Round(time.Second), f.Path)
	}
	fmt.Fprint(t, "\nFILES\t\tDIRECTORIES WITH MOST\n")
	for _, d := range u.Fullest {
		fmt.Fprintf(t, "%d\t\t%q\n", d.Files, d.Path)
	}
	return t.Flush()
}
