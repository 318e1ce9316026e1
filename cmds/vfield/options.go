package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

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

// listenOptions are the flags of a volume that stands alone.
type listenOptions struct {
	listen, swarm, gossip netip.AddrPort
	metainfo, data        string
	public                string
	store, status, name   string
	key                   string
	cache                 int64
	verbose               bool
	peers, origins, seeds []netip.AddrPort
}

// parseListen reads the command line. Help goes to out.
func parseListen(args []string, out io.Writer) (o listenOptions, err error) {
	f := flag.NewFlagSet("vfield", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the error is enough
	f.TextVar(&o.listen, "listen", netip.AddrPort{}, "serve NBD at this `address:port`")
	f.StringVar(&o.metainfo, "metainfo", "", "the image's metainfo `file`, image.torrent")
	f.StringVar(&o.public, "public", "", "serve only what the owner of this public key `file` signed: check the manifest beside the metainfo, and take the operator's words")
	f.StringVar(&o.data, "data", "", "a `directory` that holds the whole image: be its first node")
	f.TextVar(&o.swarm, "swarm", netip.AddrPortFrom(netip.IPv4Unspecified(), control.SwarmPort), "accept peers at this `address:port`")
	f.TextVar(&o.gossip, "gossip", netip.AddrPort{}, "take part in membership at this `address:port`; without it only named peers are known")
	f.StringVar(&o.store, "store", "", "keep pieces in this `file`, also for the next run (default: in memory)")
	f.StringVar(&o.key, "key", "", "this node's secret key `file`, made at the first start (default: beside --store, or a new key each time)")
	f.StringVar(&o.status, "status", "", "answer \"viver status --socket\" on this Unix `socket`")
	f.StringVar(&o.name, "name", "", "what this node is called (default: made of the host's name and addresses)")
	f.BoolVar(&o.verbose, "verbose", false, "log every connection")
	f.Func("cache", "room for pieces, as `size` such as 512M or 2G (default: for the whole image)", func(s string) (err error) {
		o.cache, err = parseSize(s)
		return err
	})
	addresses := func(name, usage string, to *[]netip.AddrPort) {
		f.Func(name, usage, func(s string) error {
			for one := range strings.SplitSeq(s, ",") {
				a, err := netip.ParseAddrPort(one)
				if err != nil {
					return err
				}
				*to = append(*to, a)
			}
			return nil
		})
	}
	addresses("peer", "other nodes, as `address:port,...`; may be given again", &o.peers)
	addresses("origin", "the first node, as `address:port`", &o.origins)
	addresses("seed", "members to join, as gossip `address:port,...`", &o.seeds)
	err = f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, listenHelp)
		f.SetOutput(out)
		f.PrintDefaults()
		return o, err
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("%q is not a flag", f.Arg(0))
	case !o.listen.IsValid():
		err = errors.New("--listen is missing: where shall NBD clients be served?")
	case o.metainfo == "":
		err = errors.New("--metainfo is missing: which image?")
	case len(o.seeds) > 0 && !o.gossip.IsValid():
		err = errors.New("--seed names members to join, so --gossip is needed too: at which address does this node take part?")
	}
	if err != nil {
		return o, usageError{fmt.Errorf("%w (see vfield --help)", err)}
	}
	if o.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("--name is missing and the host has none: %w", err)
		}
		o.name = defaultName(host, o.swarm, macs())
	}
	return o, nil
}

// longestName is what the members' words have room for, in bytes.
const longestName = 63

// defaultName is one that no other node has, not even a copy of this machine,
// and that is the same at the next start. Two nodes of one name are one node to
// the others.
func defaultName(host string, swarm netip.AddrPort, macs []net.HardwareAddr) string {
	name := host + ":" + strconv.Itoa(int(swarm.Port()))
	if !swarm.Addr().IsUnspecified() {
		name = host + "/" + swarm.String()
	}
	// Addresses that the maker gave come first: others may change.
	slices.SortFunc(macs, func(a, b net.HardwareAddr) int {
		return cmp.Or(cmp.Compare(a[0]&2, b[0]&2), bytes.Compare(a, b))
	})
	if len(macs) > 0 {
		name += "/" + macs[0].String()
	}
	return name[max(0, len(name)-longestName):] // the end is what tells nodes apart
}

// macs returns the Ethernet addresses of this machine.
func macs() (list []net.HardwareAddr) {
	links, err := net.Interfaces()
	if err != nil {
		return nil // a name without them will do
	}
	for _, l := range links {
		if len(l.HardwareAddr) == 6 {
			list = append(list, l.HardwareAddr)
		}
	}
	return list
}

// parseSize reads a number of bytes with an optional K, M or G (of 1024).
func parseSize(s string) (int64, error) {
	number, unit := strings.TrimRight(s, "KMG"), int64(1)
	switch s[len(number):] {
	case "":
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	case "G":
		unit = 1 << 30
	default:
		number = ""
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > 1<<62/unit {
		return 0, fmt.Errorf("%q is no size, want e.g. 512M or 2G", s)
	}
	return n * unit, nil
}
