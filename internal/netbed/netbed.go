// Package netbed is a small network of namespaces on one machine, for tests
// and benchmarks: one namespace per node, veths on one bridge, links with a
// rate that can be cut, and partitions.
//
//	node 0 eth0 ---- port0 \
//	node 1 eth0 ---- port1  > br0      all of it in namespaces of our own
//	node 2 eth0 ---- port2 /
//
// Real programs run in the nodes; code of this process can too, for a call.
// It is no simulator: time is real, bytes are sent. The one invariant: it never
// touches the network of the host, so New refuses to work outside of the
// namespaces that Self makes.
package netbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// What a link is made of when Config does not say.
const (
	defaultMTU   = 9000
	defaultBurst = 128 << 10
	maxNodes     = 250 * 250
)

// Config describes a bed.
type Config struct {
	Nodes int
	// Rate of each node's link in bits per second, each way; 0 leaves it open.
	Rate int64
	// Burst is the bytes that may pass at once (default 128 KiB, so that the
	// kernel hands on large packets whole and the bed costs little CPU).
	Burst int
	// MTU of every link (default 9000).
	MTU int
	// Cards lets nodes send as through network cards of their own, whose kernel
	// holds packets back in three bands by priority (pfifo_fast, Linux's default)
	// and lets programs wait. Without it, what is sent faster than the link is
	// dropped after 100 ms, as by a switch on the way.
	Cards bool
}

// Bed is a set of nodes on a bridge. Its methods are for one goroutine, those
// of its nodes for any.
type Bed struct {
	cfg     Config
	nodes   []*Node
	base    *netlink.Handle
	bridges []netlink.Link // one, and one more for each group of a partition
	ctx     context.Context
	cancel  context.CancelFunc
}

// New builds a bed of cfg.Nodes nodes with addresses 10.9.0.1 and on, all in
// 10.9.0.0/16, loopback up in each.
func New(cfg Config) (*Bed, error) {
	if !Inside() {
		return nil, errOutside
	}
	if cfg.Nodes < 0 || cfg.Nodes > maxNodes {
		return nil, fmt.Errorf("%d nodes, want up to %d", cfg.Nodes, maxNodes)
	}
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Burst == 0 {
		cfg.Burst = defaultBurst
	}
	base, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("build a bed: %w", err)
	}
	b := &Bed{cfg: cfg, base: base}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if err := b.build(); err != nil {
		b.Close()
		return nil, fmt.Errorf("build a bed: %w", err)
	}
	return b, nil
}

func (b *Bed) build() error {
	if err := up(b.base, "lo"); err != nil {
		return err
	}
	if _, err := b.bridge(0); err != nil {
		return err
	}
	for i := range b.cfg.Nodes {
		n, err := b.newNode(i)
		if n != nil {
			b.nodes = append(b.nodes, n)
		}
		if err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	return nil
}

// bridge returns bridge i, made if there is none yet.
func (b *Bed) bridge(i int) (netlink.Link, error) {
	if i < len(b.bridges) {
		return b.bridges[i], nil
	}
	name, snooping := fmt.Sprintf("br%d", i), false
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: b.cfg.MTU, TxQLen: -1}, MulticastSnooping: &snooping}
	if err := b.base.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", name, err)
	}
	b.bridges = append(b.bridges, link)
	return link, up(b.base, name)
}

// Node returns node i, counted from 0.
func (b *Bed) Node(i int) *Node { return b.nodes[i] }

// Nodes returns the nodes in order.
func (b *Bed) Nodes() []*Node { return b.nodes }

// Partition puts each group of nodes, named by their indexes, on a bridge of
// its own; nodes in no group stay together. Partition with no groups, or Heal,
// joins them all.
func (b *Bed) Partition(groups ...[]int) error {
	where := make([]int, len(b.nodes))
	for g, group := range groups {
		for _, i := range group {
			where[i] = g + 1
		}
	}
	for i, n := range b.nodes {
		bridge, err := b.bridge(0)
		if where[i] > 0 {
			for g := 1; g <= where[i] && err == nil; g++ {
				bridge, err = b.bridge(g)
			}
		}
		if err != nil {
			return fmt.Errorf("partition: %w", err)
		}
		if err := b.base.LinkSetMaster(n.port, bridge); err != nil {
			return fmt.Errorf("partition: put node %d on bridge %d: %w", i, where[i], err)
		}
	}
	return nil
}

// Heal joins all nodes on one bridge.
func (b *Bed) Heal() error { return b.Partition() }

// Close ends every process that was started in the bed and takes the bed
// apart. Whoever started a process still has to wait for it.
func (b *Bed) Close() error {
	b.cancel()
	var errs []error
	for _, n := range b.nodes {
		errs = append(errs, n.close())
	}
	for _, link := range b.bridges {
		errs = append(errs, b.base.LinkDel(link))
	}
	b.base.Close()
	b.nodes, b.bridges = nil, nil
	return errors.Join(errs...)
}

// up switches a link on.
func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch %s on: %w", name, err)
	}
	return nil
}

// address of node i.
func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 9, byte(i / 250), byte(i%250 + 1)})
}

// newNamespace makes a network namespace without entering it for good.
func newNamespace() (ns netns.NsHandle, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = current()
		return err
	})
	return ns, err
}
