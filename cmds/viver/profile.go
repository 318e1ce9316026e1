//go:build !node

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/bootprofile"
	"viver.lan/internal/bootrecord"
	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/trialboot"
)

// maxProfile is more bytes than the paths of all files of a large desktop have.
const maxProfile = 64 << 20

// trial is how viver image profile boots an image.
type trial struct {
	image, public string
	memory        int
}

func newImageProfile(env environment) *cobra.Command {
	var t trial
	var output, record string
	cmd := &cobra.Command{
		Use:   "profile IMAGE",
		Short: "List the files that an image reads while it boots, in order",
		Long: `List the files that an image reads until it is up, in the order in which it reads
them. With that list, viver image build --profile lays these files first, so that a
machine needs fewer pieces of the image to boot. The list does for later builds too:
make it again when most of the system has changed. In an image built with --separate
each file is told apart; else small files that share a block count as read together.

The image is booted once in a virtual machine (qemu-system-x86), with no network behind
it. --record takes what a real machine has read instead: its file
` + control.RecordFile + `, of a machine that booted this image.`,
		Example: `  viver image build / -o images/trial --separate
  viver image profile images/trial -o office.profile
  viver image build / -o images/office --profile office.profile`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			t.image = given[0]
			data, err := t.record(cmd.Context(), env, record)
			if err != nil {
				return err
			}
			p, err := bootprofile.Make(t.image, data, time.Now())
			if err != nil {
				return err
			}
			return writeProfile(env.stdout, output, p)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "", "`file` to write the list to (default: standard output)")
	flags.StringVar(&record, "record", "", "`file` with the boot record of a machine that booted this image; no virtual machine is used")
	flags.IntVar(&t.memory, "memory", 2048, "memory of the virtual machine in MiB")
	flags.StringVar(&t.public, "public", "", publicHelp)
	return cmd
}

// record reads a boot record, or makes one.
func (t trial) record(ctx context.Context, env environment, file string) ([]byte, error) {
	if file == "" {
		return t.boot(ctx, env)
	}
	return readAtMost(file, bootrecord.MaxSize)
}

// readAtMost reads a file; of a longer one a byte more, which its reader refuses.
func readAtMost(file string, size int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, size+1))
}

// boot makes a medium of the image, which lies beside it meanwhile, and boots it.
func (t trial) boot(ctx context.Context, env environment) (record []byte, err error) {
	if err := trialboot.Available(); err != nil {
		return nil, err
	}
	owner, err := ownerPublic(env, t.public)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Clean(t.image)), ".profile.*"+durable.Suffix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bar := newProgress(env.stderr)
	defer bar.end()
	medium := filepath.Join(dir, "medium.iso")
	if _, err := bootmedium.Build(ctx, bootmedium.Config{Images: []string{t.image}, Owner: owner, Output: medium, Progress: bar.show}); err != nil {
		return nil, hintPublic(err, t.public)
	}
	record, err = trialboot.Record(ctx, trialboot.Config{Medium: medium, Memory: t.memory, Progress: func(stage string) {
		bar.show("boot: "+stage, 0, 0)
	}})
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", t.image, err)
	}
	return record, nil
}

// writeProfile writes a profile to a file, or to w if that has no name.
func writeProfile(w io.Writer, file string, p bootprofile.Profile) (err error) {
	if file == "" {
		return p.Write(w)
	}
	f, err := durable.Create(file, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := p.Write(f); err != nil {
		return err
	}
	return f.Commit()
}

// readProfile reads the paths of a profile; none if it has no name.
func readProfile(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readAtMost(file, maxProfile)
	if err != nil {
		return nil, err
	}
	if len(text) > maxProfile {
		return nil, fmt.Errorf("%s: it has more than %d MiB, no profile has", file, maxProfile>>20)
	}
	paths, err := bootprofile.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return paths, nil
}
