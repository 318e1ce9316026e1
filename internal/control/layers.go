package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"viver.lan/internal/livelayer"
)

// addLayer takes the layer that is a request's body.
func addLayer(w http.ResponseWriter, r *http.Request, l Layers) {
	layer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, livelayer.MaxSize))
	if err == nil {
		err = l.AddLayer(layer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// sendLayer answers with the layer that a request names.
func sendLayer(w http.ResponseWriter, r *http.Request, l Layers) {
	d, err := livelayer.ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	layer, err := l.Layer(r.Context(), d)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusGone) // 404 is that of a daemon without layers
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(layer) // the reader has gone
	}
}

// peerKey is the key under which a request's context has who asks.
type peerKey struct{}

// withPeer is a http.Server's ConnContext: it notes the user at the other end.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	user, err := peerOf(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, user)
}

// peerOf asks the kernel for the user at the other end of a Unix connection.
func peerOf(conn net.Conn) (user uint32, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no Unix connection", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return peer.Uid, nil
}

// rootOnly refuses other users than root and this process's own: the agent's group may
// use the socket, too.
func rootOnly(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, known := r.Context().Value(peerKey{}).(uint32)
		if !known || user != 0 && user != uint32(os.Getuid()) {
			http.Error(w, "only root may ask for that", http.StatusForbidden)
			return
		}
		answer(w, r)
	}
}
