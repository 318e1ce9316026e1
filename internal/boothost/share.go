package boothost

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"viver.lan/internal/manifest"
)

// In a room that is switched on together each machine wants the same kernel,
// initramfs and drivers, so the nodes that are up take turns with the boot host.
// iPXE and our initramfs are sent to them by redirects, file by file; GRUB follows
// none and has them named in its configuration. A machine whose node does not
// answer comes back to the host.

// Stay in a URL's query asks for the file from here: whoever was sent here is
// not sent on.
const Stay = "stay"

// find returns the resource that a client asked for. One that only asks how long
// it is takes no turn.
func (h *Host) find(asked string, client netip.Addr, onlySize bool) (resource, bool) {
	return h.catalog.find(asked, func() []netip.AddrPort {
		if onlySize {
			return nil
		}
		return h.sources(client)
	})
}

// sources returns the HTTP servers that a machine shall fetch kernel and
// initramfs from: the first, or the next if that one fails.
func (h *Host) sources(client netip.Addr) []netip.AddrPort {
	self := netip.AddrPortFrom(h.cfg.Address.Addr(), h.cfg.HTTPPort)
	if peer, ok := h.takeTurn(h.shared[grubName], client); ok && (h.cfg.Answers == nil || h.cfg.Answers(peer)) {
		return []netip.AddrPort{peer, self}
	}
	return []netip.AddrPort{self}
}

// elsewhere returns the URL at another node from which a client should fetch a
// file, and whether it should.
func (h *Host) elsewhere(r *http.Request, name string, client netip.Addr) (string, bool) {
	count, ok := h.shared[name]
	if !ok || r.URL.RawQuery == Stay || !h.follows(r, name) {
		return "", false
	}
	peer, ok := h.takeTurn(count, client)
	if !ok {
		return "", false
	}
	return sharedURL(peer, name), true
}

// takeTurn returns the node whose turn it is to serve a client; it is this one's
// if there is none. A client that is among the nodes has been switched off and on
// again faster than the others noticed: it cannot serve itself.
func (h *Host) takeTurn(count *atomic.Uint64, client netip.Addr) (peer netip.AddrPort, ok bool) {
	if h.cfg.Peers == nil {
		return netip.AddrPort{}, false
	}
	var peers []netip.AddrPort
	for _, p := range h.cfg.Peers() {
		if p.Addr() != client {
			peers = append(peers, p)
		}
	}
	turn := int(count.Add(1) % uint64(len(peers)+1))
	if turn == len(peers) {
		return netip.AddrPort{}, false
	}
	return peers[turn], true
}

// follows reports whether a client goes where it is sent for a file. Of those that
// want kernel and initramfs only iPXE does: UEFI HTTP Boot and GRUB follow no
// redirect. The drivers are fetched by our initramfs.
func (h *Host) follows(r *http.Request, name string) bool {
	return name == h.catalog.imagePath(manifest.Drivers) || strings.HasPrefix(r.UserAgent(), "iPXE/")
}

// newShared counts how often each file was handed out that several nodes hand
// out. With one count for all, machines that fetch them in turn would all get
// the small kernel from one node and the large initramfs from another. GRUB
// fetches both from where its configuration says.
func newShared(c *catalog) map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		c.imagePath(manifest.Kernel):    new(atomic.Uint64),
		c.imagePath(manifest.Initramfs): new(atomic.Uint64),
		grubName:                        new(atomic.Uint64),
		c.imagePath(manifest.Drivers):   new(atomic.Uint64),
	}
}

func sharedURL(peer netip.AddrPort, name string) string {
	u := url.URL{Scheme: "http", Host: peer.String(), Path: "/" + name, RawQuery: Stay}
	return u.String()
}
