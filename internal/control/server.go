package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

// Daemon is what the block daemon shows on its socket.
type Daemon interface {
	// Status is asked only while somebody wants to know.
	Status() Status
	// MemberStatus is the part of Status that is about this machine's place among the
	// members: nothing of the volume, its peers, the firewall, faults, written files and
	// runes. It seldom changes, and is little work.
	MemberStatus() Status
	// Watch returns a channel that holds a token whenever the status may have
	// changed since the last one was taken. stop ends that.
	Watch() (changed <-chan struct{}, stop func())
	// Open gives a file of the image's payload, or, as INFOHASH/NAME, one of the image that
	// a node keeps besides, piece by piece from the swarm;
	// ctx ends a read that waits. The error is fs.ErrNotExist for a name that
	// the manifest does not list.
	Open(ctx context.Context, name string) (io.ReadSeeker, error)
	// PutOverride takes a signed override of the operator and tells it to all nodes.
	PutOverride(operator.Override) error
	// SetRoles takes the roles that this machine holds, which have passed
	// roles.CheckClaims, and tells the members.
	SetRoles(context.Context, []roles.Name) error
}

// Layers is a Daemon that keeps live layers (package livestore), as that of each machine
// does.
type Layers interface {
	// AddLayer takes a layer, to which the override points that comes next.
	AddLayer(layer []byte) error
	// Layer gives one of this node's layers or another node's. The error is
	// fs.ErrNotExist if nobody answers who has it.
	Layer(context.Context, livelayer.Digest) ([]byte, error)
}

// Publications is a Daemon that takes publications of images (package publication), as that
// of each machine does.
type Publications interface {
	// AddPublication takes one, to which the override points that comes next.
	AddPublication(publication []byte) error
	// Publication gives the one in use; where there is none, one in which the image that
	// this node runs comes after itself.
	Publication() ([]byte, error)
}

// Machine is a Daemon of a machine that has its root disk from it.
type Machine interface {
	// AnnounceOff tells the members that the machine is about to be switched off.
	AnnounceOff(context.Context) error
}

// Beginner is a Daemon that takes part in a network, as that of each machine does.
type Beginner interface {
	// BeginNetwork has the network named, if nobody has named it: the status has the name
	// soon. The error says that this node takes part in none.
	BeginNetwork() error
}

// maxBody bounds what is sent to us, and what of a refusal is read: JSON of an
// override is at most seven times its size.
const maxBody = 8 * operator.MaxSize

// Serve answers on the Unix socket at path until ctx ends: root, and the group
// of that ID, -1 for this process's own. It returns when all is answered, unless an
// answer hangs. A socket that a killed daemon left behind is replaced.
func Serve(ctx context.Context, path string, group int, d Daemon, log *slog.Logger) error {
	if err := removeStale(ctx, path); err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(path, 0o660), os.Chown(path, -1, group)); err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	srv := &http.Server{Handler: contain.Handler(log, handler(d)), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnContext: withCaller}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { end(srv); close(ended) })
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve %s: %w", path, err)
	}
	<-ended
	return ctx.Err()
}

// endWithin is how long answers may take that were begun before the end.
const endWithin = 3 * time.Second

// end waits for the answers that were begun, whose context has ended: they use what the
// caller of Serve closes next.
func end(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // whoever still hangs does so for ever
	}
}

// removeStale removes a socket that nobody answers on.
func removeStale(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != os.ModeSocket:
		return errors.New("there is something else than a socket")
	}
	d := net.Dialer{Timeout: time.Second}
	if conn, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return errors.New("another daemon answers there")
	}
	return os.Remove(path)
}

func handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.Status()) // the reader has gone
	})
	mux.HandleFunc("GET /watch", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		_ = watch(r.Context(), d, d.Status, sendTo(w)) // the reader has gone
	})
	mux.HandleFunc("GET /watch/members", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		_ = watch(r.Context(), d, d.MemberStatus, sendTo(w)) // the reader has gone
	})
	mux.HandleFunc("POST /overrides", func(w http.ResponseWriter, r *http.Request) {
		var o operator.Override
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&o)
		if err == nil {
			err = d.PutOverride(o)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	if l, ok := d.(Layers); ok {
		mux.HandleFunc("POST /live", rootOnly(func(w http.ResponseWriter, r *http.Request) { addLayer(w, r, l) }))
		mux.HandleFunc("GET /live/{digest}", rootOnly(func(w http.ResponseWriter, r *http.Request) { sendLayer(w, r, l) }))
	}
	if p, ok := d.(Publications); ok {
		mux.HandleFunc("POST /publication", rootOnly(func(w http.ResponseWriter, r *http.Request) { addPublication(w, r, p) }))
		mux.HandleFunc("GET /publication", rootOnly(func(w http.ResponseWriter, _ *http.Request) { sendPublication(w, p) }))
	}
	if m, ok := d.(Machine); ok {
		mux.HandleFunc("POST /off", rootOnly(func(w http.ResponseWriter, r *http.Request) {
			if err := m.AnnounceOff(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}))
	}
	if b, ok := d.(Beginner); ok {
		mux.HandleFunc("POST /network", rootOnly(func(w http.ResponseWriter, _ *http.Request) {
			if err := b.BeginNetwork(); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}))
	}
	mux.HandleFunc("POST /roles", setRoles(d))
	mux.HandleFunc("GET /files/{name...}", func(w http.ResponseWriter, r *http.Request) {
		f, err := d.Open(r.Context(), r.PathValue("name"))
		if errors.Is(err, os.ErrNotExist) {
			http.NotFound(w, r)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	})
	return mux
}
