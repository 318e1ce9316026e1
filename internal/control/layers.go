package control

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"

	"viver.lan/internal/livelayer"
)

// addLayer takes the layer that is a request's body.
func addLayer(w http.ResponseWriter, r *http.Request, l Layers) { takeBody(w, r, l.AddLayer) }

// takeBody gives take a request's body.
func takeBody(w http.ResponseWriter, r *http.Request, take func([]byte) error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, livelayer.MaxSize))
	if err == nil {
		err = take(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func addPublication(w http.ResponseWriter, r *http.Request, p Publications) {
	takeBody(w, r, p.AddPublication)
}

func sendPublication(w http.ResponseWriter, p Publications) {
	publication, err := p.Publication()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(publication) // the reader has gone
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

// rootOnly refuses other users than root and this process's own: the agent's group may
// use the socket, too.
func rootOnly(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, known := r.Context().Value(callerKey{}).(uint32)
		if !known || user != 0 && int(user) != os.Geteuid() {
			http.Error(w, "only root may ask for that", http.StatusForbidden)
			return
		}
		answer(w, r)
	}
}
