package netbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Node is one machine of a bed.
type Node struct {
	bed   *Bed
	index int
	ns    netns.NsHandle
	inner *netlink.Handle
	port  netlink.Link // our end of the cable, on the bridge
	eth0  netlink.Link // its end
}

func (b *Bed) newNode(i int) (*Node, error) {
	n := &Node{bed: b, index: i, ns: netns.None()}
	var err error
	if n.ns, err = newNamespace(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	own, err := current()
	if err != nil {
		return n, err
	}
	defer own.Close()
	if n.inner, err = netlink.NewHandleAtFrom(n.ns, own); err != nil {
		return n, err
	}
	if err := up(n.inner, "lo"); err != nil {
		return n, err
	}
	name := fmt.Sprintf("port%d", i)
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: b.cfg.MTU, TxQLen: -1},
		PeerName: "eth0", PeerNamespace: netlink.NsFd(n.ns), PeerMTU: uint32(b.cfg.MTU)}
	if err := b.base.LinkAdd(cable); err != nil {
		return n, fmt.Errorf("add cable: %w", err)
	}
	if n.port, err = b.base.LinkByName(name); err != nil {
		return n, err
	}
	if n.eth0, err = n.inner.LinkByName("eth0"); err != nil {
		return n, err
	}
	if err := b.base.LinkSetMaster(n.port, b.bridges[0]); err != nil {
		return n, fmt.Errorf("plug the cable in: %w", err)
	}
	if err := n.inner.AddrAdd(n.eth0, &netlink.Addr{IPNet: &net.IPNet{IP: n.Addr().AsSlice(), Mask: net.CIDRMask(16, 32)}}); err != nil {
		return n, fmt.Errorf("give address %s: %w", n.Addr(), err)
	}
	if b.cfg.Rate > 0 {
		if err := n.SetRate(b.cfg.Rate); err != nil {
			return n, err
		}
	}
	if err := up(n.inner, "eth0"); err != nil {
		return n, err
	}
	return n, n.SetLink(true)
}

// Index is the node's place in its bed, from 0.
func (n *Node) Index() int { return n.index }

// Addr is the node's address; its network is 10.9.0.0/16.
func (n *Node) Addr() netip.Addr { return address(n.index) }

// AddrPort is a port at the node's address.
func (n *Node) AddrPort(port uint16) netip.AddrPort { return netip.AddrPortFrom(n.Addr(), port) }

// SetLink pulls the node's cable out (false) or puts it in. The node keeps its
// address and its connections and sees that the carrier is gone.
func (n *Node) SetLink(up bool) error {
	change := n.bed.base.LinkSetDown
	if up {
		change = n.bed.base.LinkSetUp
	}
	if err := change(n.port); err != nil {
		return fmt.Errorf("set link of node %d to %t: %w", n.index, up, err)
	}
	return nil
}

// SetRate limits the node's link to so many bits per second each way, by a
// token bucket (tc-tbf(8)); 0 takes the limit away.
func (n *Node) SetRate(bits int64) error {
	for _, end := range []struct {
		h    *netlink.Handle
		link netlink.Link
	}{{n.bed.base, n.port}, {n.inner, n.eth0}} {
		if err := limit(end.h, end.link, bits, n.bed.cfg.Burst); err != nil {
			return fmt.Errorf("limit node %d to %d bit/s: %w", n.index, bits, err)
		}
	}
	if !n.bed.cfg.Cards || bits == 0 {
		return nil
	}
	bands := netlink.QdiscAttrs{LinkIndex: n.eth0.Attrs().Index, Handle: netlink.MakeHandle(2, 0), Parent: netlink.MakeHandle(1, 1)}
	if err := n.inner.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: bands, QdiscType: "pfifo_fast"}); err != nil {
		return fmt.Errorf("give node %d the queue of a card: %w", n.index, err)
	}
	return nil
}

// limit shapes what leaves by link. The queue behind the bucket holds 100 ms,
// about what a switch holds, and never less than a few large packets.
func limit(h *netlink.Handle, link netlink.Link, bits int64, burst int) error {
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if bits == 0 {
		err := h.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
			return nil // there was none
		}
		return err
	}
	rate := uint64(bits / 8)
	queue := max(int(rate/10), 512<<10)
	return h.QdiscReplace(&netlink.Tbf{QdiscAttrs: attrs, Rate: rate,
		Buffer: netlink.Xmittime(rate, uint32(burst)), Limit: uint32(queue)})
}

// Sent returns how many bytes have left the node by its link so far, headers
// included (once for a large packet that the kernel hands on whole).
func (n *Node) Sent() (int64, error) {
	link, err := n.inner.LinkByIndex(n.eth0.Attrs().Index)
	if err != nil {
		return 0, fmt.Errorf("count what node %d sent: %w", n.index, err)
	}
	return int64(link.Attrs().Statistics.TxBytes), nil
}

// Command returns a command that will run in the node, in a process group of
// its own (a Ctrl-C at the terminal is for us). It is killed, with its group,
// when ctx ends or the bed is closed. Needs nsenter (Debian: util-linux).
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(n.bed.ctx, cancel)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.path(), "--", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	return cmd
}

// path names the node's namespace for other processes. /proc may be that of
// an outer process namespace, so our own number in it is asked for.
func (n *Node) path() string {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		self = "self"
	}
	return fmt.Sprintf("/proc/%s/fd/%d", self, int(n.ns))
}

// Do runs f on a thread inside the node's network: sockets that f opens
// itself (not in goroutines it starts) belong to the node for good.
func (n *Node) Do(f func() error) error {
	return inside(n.ns, f)
}

// In is Node.Do in a network namespace that was given a name by ip-netns(8).
func In(name string, f func() error) error {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("find namespace %q: %w", name, err)
	}
	defer ns.Close()
	return inside(ns, f)
}

func inside(ns netns.NsHandle, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter a namespace: %w", err)
		}
		return f()
	})
}

// current is the namespace of this thread. Its number is not asked for, because
// /proc may be that of an outer process namespace.
func current() (netns.NsHandle, error) {
	return netns.GetFromPath("/proc/thread-self/ns/net")
}

// Dial connects from inside the node; addresses are numbers, not names.
func (n *Node) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen listens inside the node.
func (n *Node) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, network, addr)
		return err
	})
	return l, err
}

func (n *Node) close() error {
	var errs []error
	if n.port != nil {
		errs = append(errs, n.bed.base.LinkDel(n.port)) // and with it eth0
	}
	if n.inner != nil {
		n.inner.Close()
	}
	if n.ns.IsOpen() {
		errs = append(errs, n.ns.Close())
	}
	return errors.Join(errs...)
}

// onThread runs f on a thread of its own choice of namespace, which goes back
// to ours afterwards; a thread that cannot go back is never used again.
func onThread(f func() error) error {
	runtime.LockOSThread()
	own, err := current()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	err = f()
	if back := netns.Set(own); back != nil {
		return errors.Join(err, fmt.Errorf("come back from a namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
