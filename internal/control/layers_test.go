package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/livelayer"
)

// layerDaemon keeps the last layer that it was given.
type layerDaemon struct {
	*fakeDaemon
	layer []byte
}

func (d *layerDaemon) AddLayer(layer []byte) error {
	if string(layer) == "wrong" {
		return errors.New("its rune is wrong")
	}
	d.layer = layer
	return nil
}

func (d *layerDaemon) Layer(_ context.Context, digest livelayer.Digest) ([]byte, error) {
	if livelayer.PointTo(d.layer).Digest != digest {
		return nil, fmt.Errorf("nobody has it: %w", fs.ErrNotExist)
	}
	return d.layer, nil
}

func TestLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer serveDaemon(t, path, &layerDaemon{fakeDaemon: newFakeDaemon()})()
	c := NewClient(path)
	layer := []byte("a layer")
	digest := livelayer.PointTo(layer).Digest
	if err := c.AddLayer(t.Context(), layer); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Layer(t.Context(), digest); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("it came back as %q, %v", got, err)
	}
	if got, err := c.Layer(t.Context(), livelayer.Digest{}); err == nil || errors.Is(err, ErrVersion) {
		t.Errorf("one that nobody has: %q, %v", got, err)
	}
	if err := c.AddLayer(t.Context(), []byte("wrong")); err == nil || !strings.Contains(err.Error(), "its rune is wrong") {
		t.Errorf("a wrong one: %v", err)
	}
	if err := c.AddLayer(t.Context(), make([]byte, livelayer.MaxSize+1)); err == nil || errors.Is(err, ErrVersion) {
		t.Errorf("one that is too large: %v", err)
	}
}

func TestADaemonWithoutLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer serve(t, path)()
	c := NewClient(path)
	if err := c.AddLayer(t.Context(), []byte("a layer")); !errors.Is(err, ErrVersion) {
		t.Errorf("add: %v", err)
	}
	if _, err := c.Layer(t.Context(), livelayer.Digest{}); !errors.Is(err, ErrVersion) {
		t.Errorf("get: %v", err)
	}
}

// The agent may use the socket, and must not change the network.
func TestLayersAreForRoot(t *testing.T) {
	me := uint32(os.Getuid())
	for _, test := range []struct {
		peer any
		want int
	}{{uint32(0), http.StatusOK}, {me, http.StatusOK}, {me + AgentID, http.StatusForbidden}, {nil, http.StatusForbidden}} {
		r := httptest.NewRequest(http.MethodPost, "/live", nil)
		if test.peer != nil {
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, test.peer))
		}
		w := httptest.NewRecorder()
		rootOnly(func(http.ResponseWriter, *http.Request) {})(w, r)
		if w.Code != test.want {
			t.Errorf("user %v gets %d, want %d", test.peer, w.Code, test.want)
		}
	}
}
