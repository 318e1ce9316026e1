package boothost

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"viver.lan/internal/manifest"
)

// stay in a URL's query asks for the file from here: whoever was sent here is
// not sent on.
const stay = "stay"

// elsewhere returns the URL at another node from which a client should fetch a
// file, and whether it should. In a room that is switched on together each
// machine wants the same kernel and initramfs, so those that are up take turns
// with this one. Only iPXE is sent away: UEFI HTTP Boot and GRUB follow no
// redirect. When the other node does not answer, iPXE's script asks us to stay.
func (h *Host) elsewhere(r *http.Request, name string) (string, bool) {
	count, ok := h.shared[name]
	if !ok || h.cfg.Peers == nil || r.URL.RawQuery == stay || !strings.HasPrefix(r.UserAgent(), "iPXE/") {
		return "", false
	}
	peers := h.cfg.Peers()
	turn := int(count.Add(1) % uint64(len(peers)+1))
	if turn == len(peers) {
		return "", false
	}
	return sharedURL(peers[turn], name), true
}

// newShared counts how often each file was handed out that several nodes hand
// out. With one count for both, machines that fetch them in turn would all get
// the small kernel from one node and the large initramfs from another.
func newShared(c *catalog) map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		c.imagePath(manifest.Kernel):    new(atomic.Uint64),
		c.imagePath(manifest.Initramfs): new(atomic.Uint64),
	}
}

func sharedURL(peer netip.AddrPort, name string) string {
	u := url.URL{Scheme: "http", Host: peer.String(), Path: "/" + name, RawQuery: stay}
	return u.String()
}
