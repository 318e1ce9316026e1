package boothost

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"viver.lan/internal/manifest"
)

// stay in a URL's query asks for the file from here: whoever was sent here is
// not sent on.
const stay = "stay"

// elsewhere returns the URL at another node from which a client should fetch a
// file, and whether it should. In a room that is switched on together each
// machine wants the same kernel and initramfs, so those that are up take turns
// with this one. Only iPXE is sent away: UEFI HTTP Boot and GRUB follow no
// redirect. When the other node does not answer, iPXE's script comes back here.
func (h *Host) elsewhere(r *http.Request, name string) (string, bool) {
	if h.cfg.Peers == nil || r.URL.RawQuery == stay || !strings.HasPrefix(r.UserAgent(), "iPXE/") ||
		name != h.catalog.imagePath(manifest.Kernel) && name != h.catalog.imagePath(manifest.Initramfs) {
		return "", false
	}
	peers := h.cfg.Peers()
	turn := int(h.shared.Add(1) % uint64(len(peers)+1))
	if turn == len(peers) {
		return "", false
	}
	return sharedURL(peers[turn], name), true
}

func sharedURL(peer netip.AddrPort, name string) string {
	u := url.URL{Scheme: "http", Host: peer.String(), Path: "/" + name, RawQuery: stay}
	return u.String()
}
