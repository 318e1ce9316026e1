package boothost

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"viver.lan/internal/manifest"
)

// When all machines of a room start together, each fetches the same kernel,
// initramfs and drivers, so the boot host spreads the downloads round robin over
// itself and the nodes that are up. iPXE and our initramfs get a redirect for each
// file; GRUB follows none, so its configuration names the node. A machine whose node
// does not answer comes back to the boot host.

// find returns the resource that a client asked for. A request for the
// size only does not count in the round robin.
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
	if peer, ok := h.nextPeer(h.rounds[grubName], client); ok && (h.cfg.Reachable == nil || h.cfg.Reachable(peer)) {
		return []netip.AddrPort{peer, self}
	}
	return []netip.AddrPort{self}
}

// redirect returns the URL at another node from which a client should fetch a
// file; ok is false when it gets the file here.
func (h *Host) redirect(r *http.Request, name string, client netip.Addr) (to string, ok bool) {
	count, ok := h.rounds[name]
	if !ok || r.URL.Query().Has(manifest.NoRedirect) || !h.follows(r, name) {
		return "", false
	}
	peer, ok := h.nextPeer(count, client)
	if !ok {
		return "", false
	}
	return redirectURL(peer, name, r.URL.RawQuery), true
}

// nextPeer returns the next node of the round robin; ok is false when it is this one.
// A client that is among the nodes was restarted before the others noticed: it
// cannot serve itself.
func (h *Host) nextPeer(count *atomic.Uint64, client netip.Addr) (peer netip.AddrPort, ok bool) {
	if h.cfg.Peers == nil {
		return netip.AddrPort{}, false
	}
	peers := slices.DeleteFunc(slices.Clone(h.cfg.Peers()), func(p netip.AddrPort) bool { return p.Addr() == client })
	next := int(count.Add(1) % uint64(len(peers)+1))
	if next == len(peers) {
		return netip.AddrPort{}, false
	}
	return peers[next], true
}

// follows reports whether a client follows a redirect for a file. Of those that
// fetch kernel and initramfs only iPXE does; UEFI HTTP Boot and GRUB do not. The
// drivers are fetched by our initramfs, which does.
func (h *Host) follows(r *http.Request, name string) bool {
	drivers := name == h.catalog.imagePath(manifest.Drivers) || name == h.catalog.imagePath(manifest.NICs)
	return drivers || strings.HasPrefix(r.UserAgent(), "iPXE/")
}

// newRounds returns the round robin's counter of each file that several nodes serve.
// With one counter for all, machines that fetch one file after the other would all
// get the small kernel from one node and the large initramfs from another. GRUB
// fetches both from the node in its configuration.
func newRounds(c *catalog) map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		c.imagePath(manifest.Kernel):    new(atomic.Uint64),
		c.imagePath(manifest.Initramfs): new(atomic.Uint64),
		c.imagePath(manifest.NICs):      new(atomic.Uint64),
		grubName:                        new(atomic.Uint64),
		c.imagePath(manifest.Drivers):   new(atomic.Uint64),
	}
}

// redirectURL names a file at another node. A query that is not our script's is not
// passed on.
func redirectURL(peer netip.AddrPort, name, query string) string {
	u := url.URL{Scheme: "http", Host: peer.String(), Path: "/" + name, RawQuery: manifest.NoRedirect}
	if asked, err := url.ParseQuery(query); err == nil && asked.Has(cardKey) {
		u.RawQuery = url.Values{cardKey: asked[cardKey][:1], configKey: {asked.Get(configKey)}}.Encode() + "&" + manifest.NoRedirect
	}
	return u.String()
}
