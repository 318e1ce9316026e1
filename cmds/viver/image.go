package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"viver.lan/internal/imagedir"
)

func newImage(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build, list, compare, publish, verify and delete diskless images",
	}
	cmd.AddCommand(newImageBuild(env), newImageDelete(env), newImageDiff(env), newImageExplain(env), newImageList(env),
		newImageProfile(env), newImagePublish(env), newImageRollback(env), newImageShow(env), newImageSign(env), newImageVerify(env))
	return cmd
}

func newImageVerify(env environment) *cobra.Command {
	var format, public string
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check every byte of an image against its manifest, and the manifest's signature",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("-o %s: want text or json", format)}
			}
			owner, err := ownerPublic(env, public)
			if err != nil {
				return err
			}
			bar := newProgress(env.stderr)
			r, err := imagedir.Verify(cmd.Context(), given[0], owner, func(done, total int64) { bar.show("verify", done, total) })
			bar.end()
			if err != nil {
				return hintPublic(err, public)
			}
			return printVerified(env.stdout, format, given[0], r)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&public, "public", "", publicHelp)
	return cmd
}

func printVerified(w io.Writer, format, dir string, r *imagedir.Verified) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
		return r.Err()
	}
	if err := r.Err(); err != nil {
		return err
	}
	compared := ""
	if !r.Trusted {
		compared = ", which was not compared with a known key: name the owner's with --public"
	}
	_, err := fmt.Fprintf(w, "%s: complete, %d files, %d MiB, infohash %s, signed by key %s%s\n",
		dir, len(r.Manifest.Files), r.Manifest.Size()>>20, r.Manifest.Infohash, r.SignedBy, compared)
	return err
}
