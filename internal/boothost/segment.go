package boothost

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// grubAgent is how GRUB's User-Agent begins.
const grubAgent = "GRUB "

// connectionKey is for the connection in the context of a request.
type connectionKey struct{}

// withConnection is a http.Server's ConnContext.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if counted, ok := c.(*countedConn); ok {
		c = counted.Conn
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// enlargeSegments makes the answer to GRUB come in segments as large as the link's
// (package segment says why). Other clients say themselves what they take.
func (h *Host) enlargeSegments(r *http.Request) error {
	conn, ok := r.Context().Value(connectionKey{}).(*net.TCPConn)
	if !ok || h.cfg.EnlargeSegments == nil || !strings.HasPrefix(r.UserAgent(), grubAgent) {
		return nil
	}
	return h.cfg.EnlargeSegments(conn)
}
