package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"

	"viver.lan/internal/blockdaemon"
	"viver.lan/internal/control"
)

const listenHelp = `usage: vfield --listen ADDRESS:PORT --metainfo IMAGE.TORRENT [flags]

A volume on any machine: it joins the swarm of an image and serves the image
to NBD clients (nbdcopy, qemu-img, nbd-client) over TCP, read-only. Each file
of the image is an export of its own; the first, the root disk, is the default.

  vfield --listen 127.0.0.1:10809 --metainfo debian/image.torrent --origin 10.77.0.1:6881
  qemu-img convert nbd://127.0.0.1:10809 root.squashfs

It serves until Ctrl-C or SIGTERM; that ends it with exit code 0 and leaves
nothing behind but the files of --store and --data. Exit code 1 says that it
failed, 2 that the command line was wrong. docs/vfield.md tells more.

Flags:
`

// parseListen reads the command line. Help goes to out.
func parseListen(args []string, out io.Writer) (o blockdaemon.Options, err error) {
	f := flag.NewFlagSet("vfield", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the error is enough
	f.TextVar(&o.Listen, "listen", netip.AddrPort{}, "serve NBD at this `address:port`")
	f.StringVar(&o.Metainfo, "metainfo", "", "the image's metainfo `file`, image.torrent")
	f.StringVar(&o.Public, "public", "", "serve only what the owner of this public key `file` signed: check the manifest beside the metainfo, and take the operator's overrides")
	f.StringVar(&o.Data, "data", "", "a `directory` that holds the whole image: be its first node")
	f.TextVar(&o.Swarm, "swarm", netip.AddrPortFrom(netip.IPv4Unspecified(), control.SwarmPort), "accept peers at this `address:port`")
	f.TextVar(&o.Gossip, "gossip", netip.AddrPort{}, "take part in membership at this `address:port`; without it only named peers are known")
	f.StringVar(&o.Store, "store", "", "keep pieces in this `file`, also for the next run (default: in memory)")
	f.StringVar(&o.Key, "key", "", "this node's secret key `file`, made at the first start (default: beside --store, or a new key each time)")
	f.StringVar(&o.Status, "status", "", "answer \"viver status --socket\" on this Unix `socket`")
	f.StringVar(&o.Name, "name", "", "what this node is called (default: made of the host's name and addresses)")
	f.BoolVar(&o.Verbose, "verbose", false, "log every connection")
	f.Func("cache", "room for pieces, as `size` such as 512M or 2G (default: for the whole image)", o.Cache.Set)
	f.Func("peer", "other nodes, as `address:port,...`; may be given again", o.Peers.Add)
	f.Func("origin", "the first node, as `address:port`", o.Origins.Add)
	f.Func("seed", "members to join, as gossip `address:port,...`", o.Seeds.Add)
	if err = f.Parse(args); err == nil && f.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(out, listenHelp)
		f.SetOutput(out)
		f.PrintDefaults()
	} else if err != nil {
		err = blockdaemon.UsageError(err.Error())
	}
	return o, err
}
