//go:build !node

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/bytesize"
	"viver.lan/internal/exclude"
	"viver.lan/internal/imagebuild"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

func newImageBuild(env environment) *cobra.Command {
	var c imagebuild.Config
	var modules, key, profile, passphrase string
	var keepFiles, excludeFiles []string
	var asks bool
	cmd := &cobra.Command{
		Use:   "build [SOURCE -o IMAGE]",
		Short: "Turn an installed Linux into a diskless image",
		Long: `Turn an installed Linux into a diskless image: a directory with the root file
system, the kernel, the initramfs, the boot programs and their description,
signed with the owner's key. The first build makes that key; its public half
goes into the initramfs, which then takes images of this owner only.

Without anything behind it, on a terminal, it asks: which of the Linuxes that it finds, what to
leave out, where to put the image and what to make of it. It shows the commands that do
this, before and after.

The source is one of these; its content tells which, and the first line says it:
  /                  the running system
  DIRECTORY          an installed Linux: a mounted disk, a tree of debootstrap
  FILE               a tar archive, which keeps owners and permissions for a user
                     who is not root
  FILE, DIRECTORY    an image of a container with a kernel in it: what docker save or
                     podman save has written, or an OCI layout. Of several images
                     --ref chooses one
  FILE, /dev/DISK    a disk, a partition, or an image of one: raw, qcow2, VMDK, VDI,
                     VHDX. Its partitions are mounted read-only, by root, as its fstab
                     says. LVM and one disk of a mirror are read, LUKS is opened with
                     --passphrase-file. Of several installed Linuxes --root chooses one
Each file may be compressed with gzip, xz, zstd or bzip2. The source is never
changed. What belongs to one machine only is left out: its identity and keys,
swap, caches, container storage, snapshots, settings for the next boot, other file
systems that are mounted, earlier images. So is what an image cannot hold. Each reason
is shown with its size; viver image explain shows every file. --keep includes what a
rule leaves out, --exclude leaves out more. Where both match a file, the pattern with
more levels holds, and --exclude of two that have as many; a --keep within what --exclude
leaves out brings no key and no password that it does not name.

With --onto, the new image shares the pieces of an earlier one of yours wherever their
content is the same: a machine that has that one fetches only what is new. What the
earlier one has and the source has not stays in the bytes of the image, though no file leads
there; where that is more than a quarter, the image is built without it.

UEFI machines boot over the network by Debian's signed shim and GRUB. --ipxe gives the
image an iPXE in their place: a machine then fetches less. For Secure Boot it must be
the signed one of its makers, behind their shim (docs/signing.md). Who signed what is shown.

systemd does some work at the first boot after an update. An image marks what of it
is done in the source already, or else says what every boot does again.`,
		Example: `  sudo viver image build
  sudo viver image build / -o images/office
  viver image build debian.tar.zst -o images/debian
  sudo viver image build lab.qcow2 -o images/lab
  docker save lab:12 | zstd >lab.tar.zst && viver image build lab.tar.zst -o images/lab
  sudo viver image build / -o images/lab --keep /var/lib/docker --keep '/etc/ssl/private/*'
  sudo viver image build / -o images/lab --exclude /home --keep /home/guest
  viver image build debian.tar -o images/tuesday --onto images/monday
  viver image build debian.tar -o images/room --ipxe x86_64-sb/snponly.efi --ipxe-shim x86_64-sb/snponly-shim.efi`,
		Args: func(cmd *cobra.Command, given []string) error {
			if asks = len(given) == 0 && cmd.Flags().NFlag() == 0 && canAsk(env); asks {
				return nil
			}
			return args(sourceAndOutput)(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if asks {
				return askImage(cmd.Context(), env)
			}
			switch modules {
			case "all", "none":
				c.NoModules = modules == "none"
			default:
				return usageError{fmt.Errorf("--modules %s: want all or none", modules)}
			}
			if err := imagebuild.CheckLevel(c.Level); err != nil {
				return usageError{fmt.Errorf("--level: %w", err)}
			}
			if c.IPXEShim != "" && c.IPXE == "" {
				return usageError{errors.New("--ipxe-shim: name the iPXE that it starts with --ipxe, too")}
			}
			if c.Separate && c.Onto != "" {
				return usageError{errors.New("--separate: the files of the image named by --onto share blocks; build the image to be profiled without it")}
			}
			var err error
			if c.Choice.Keep, err = readPatterns(c.Choice.Keep, keepFiles); err != nil {
				return err
			}
			if c.Choice.Exclude, err = readPatterns(c.Choice.Exclude, excludeFiles); err != nil {
				return err
			}
			if c.Passphrase, err = readPassphrase(passphrase); err != nil {
				return err
			}
			if c.First, err = readProfile(profile); err != nil {
				return err
			}
			if c.Lib, err = libDir(env, c.Lib); err != nil {
				return err
			}
			if c.Key, err = ownerKey(env, key); err != nil {
				return err
			}
			bar := newProgress(env.stderr)
			c.Source, c.Created = given[0], time.Now()
			c.Progress = bar.show
			c.Note = func(s string) { bar.end(); fmt.Fprintln(env.stderr, s) }
			m, err := imagebuild.Build(cmd.Context(), c)
			bar.end()
			if err != nil {
				return err
			}
			return printImage(env.stdout, c.Output, m, c.Key.Public().ID())
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&c.Output, "output", "o", "", "image directory to make; an image of that name is replaced")
	flags.StringVar(&c.Lib, "lib", "", "directory with "+imagebuild.GoInitramfs+" and the boot programs (default: found beside viver)")
	flags.StringVar(&c.Ref, "ref", "", "`image` of a container to take of several in the source: its name, or the beginning of its digest")
	flags.StringVar(&c.Root, "root", "", "`partition` with the root, of several on a disk: its number, with a btrfs's subvolume 2:@; with LVM GROUP/VOLUME")
	flags.StringVar(&passphrase, "passphrase-file", "", "`file` with the passphrase, or the key, of what is encrypted with LUKS on a disk")
	flags.StringVar(&key, "key", "", "the owner's secret key `file`; made when it does not exist (default: "+sign.KeyFile+" in ~/.config/viver)")
	flags.StringVar(&c.Kernel, "kernel", "", "kernel to boot: its release, or its `file`, in the source or on this machine (default: the newest that is found)")
	flags.StringArrayVar(&c.Choice.Keep, "keep", nil, "`pattern` of files to include although a rule leaves them out, with all below; may be repeated")
	flags.StringArrayVar(&keepFiles, "keep-from", nil, "`file` with such patterns, one in a line; # begins a comment")
	flags.StringArrayVar(&c.Choice.Exclude, "exclude", nil, "`pattern` of files to leave out, with all below; may be repeated")
	flags.StringArrayVar(&excludeFiles, "exclude-from", nil, "`file` with such patterns, one in a line; # begins a comment")
	flags.StringVar(&c.Onto, "onto", "", "`image` whose pieces the new one shares where it can")
	flags.StringVar(&profile, "profile", "", "`file` with the files to lay first, in the order in which a boot reads them (viver image profile)")
	flags.BoolVar(&c.Separate, "separate", false, "give each file blocks of its own: for an image that shall be profiled exactly (viver image profile)")
	flags.StringVar(&c.IPXE, "ipxe", "", "`file` of an iPXE for UEFI, snponly.efi or ipxe.efi, that boots UEFI machines over the network in place of shim and GRUB")
	flags.StringVar(&c.IPXEShim, "ipxe-shim", "", "`file` of the shim that iPXE's makers have for Secure Boot (with --ipxe)")
	flags.IntVar(&c.Level, "level", imagebuild.DefaultLevel, "zstd level of the root file system, 1 to 22")
	flags.Func("piece-length", "`size` of the pieces in which machines fetch the image, such as 256K (default: 128K, longer above 8 GiB)", func(text string) error {
		var size bytesize.Size
		if err := size.Set(text); err != nil {
			return err
		}
		c.PieceLength = int64(size)
		return metainfo.CheckPieceLength(c.PieceLength)
	})
	flags.StringVar(&modules, "modules", "all", "kernel modules in the root file system: all, or none when its programs load none")
	_ = cmd.MarkFlagDirname("output")
	_ = cmd.MarkFlagDirname("onto")
	return cmd
}

// sourceAndOutput asks for what every build needs; cobra would also ask for it where viver asks itself.
func sourceAndOutput(cmd *cobra.Command, given []string) error {
	if len(given) == 0 && cmd.Flags().NFlag() == 0 {
		return errors.New("it needs a SOURCE, such as / for this machine's own system, and -o IMAGE; on a terminal it asks")
	}
	if err := cobra.ExactArgs(1)(cmd, given); err != nil {
		return err
	}
	if !cmd.Flags().Changed("output") {
		return errors.New("--output (-o) IMAGE is missing, the directory to make the image in")
	}
	return nil
}

// maxPatterns bounds a file of patterns, in bytes.
const maxPatterns = 1 << 20

// readPatterns adds those of files to patterns that were given by themselves.
func readPatterns(patterns, files []string) ([]string, error) {
	for _, file := range files {
		data, err := readAtMost(file, maxPatterns)
		if err != nil {
			return nil, err
		}
		if len(data) > maxPatterns {
			return nil, fmt.Errorf("%s: it has more than %d MiB, no list of patterns has", file, maxPatterns>>20)
		}
		patterns = append(patterns, exclude.ParsePatterns(string(data))...)
	}
	return patterns, nil
}

// readPassphrase reads what opens an encrypted disk; "" is the name of none.
func readPassphrase(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	const most = 8 << 20 // as cryptsetup has it
	data, err := readAtMost(file, most)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--passphrase-file: %w", err)
	case len(data) > most:
		return nil, fmt.Errorf("--passphrase-file: %s has more than %d MiB, no key has", file, most>>20)
	case len(data) == 0:
		return nil, fmt.Errorf("--passphrase-file: %s is empty", file)
	}
	return data, nil
}

func printImage(w io.Writer, dir string, m *manifest.Manifest, key string) error {
	_, err := fmt.Fprintf(w, "%s: %s, kernel %s, %d MiB (root file system %d MiB), infohash %s, signed by key %s\n",
		dir, m.Distribution, m.KernelRelease, m.Size()>>20, m.RootFile().Size>>20, m.Infohash, key)
	return err
}

// ownerKey opens the key that signs images: the one given by --key, else the
// user's. It is made at its first use, with a message.
func ownerKey(env environment, given string) (sign.PrivateKey, error) {
	path, err := keyPath(env, given)
	if err != nil {
		return sign.PrivateKey{}, err
	}
	key, made, err := sign.OpenKey(path)
	if err != nil && given == "" {
		return key, fmt.Errorf("%w; --key names another file", err)
	}
	if made {
		fmt.Fprintf(env.stderr, `Made the owner's key %s: %s
It signs your images, and machines that boot them accept no others. Keep it secret
and make a backup. Its public half, %s, may be given to anyone.
`, key.Public().ID(), path, sign.PublicPath(path))
	}
	return key, err
}
