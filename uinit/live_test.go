package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

// A machine boots with what the owner added, from its boot host or its saved-data disk,
// and with nothing that others signed or changed.
func TestBootWithALiveLayer(t *testing.T) {
	owner, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	public := filepath.Join(dir, "owner.pub")
	if err := os.WriteFile(public, owner.Public().Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	layer := livechange.Empty()
	layer.Off = []string{"x11"}
	data, err := layer.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pointer := livelayer.PointTo(data)
	by := func(key sign.PrivateKey, o operator.Override) operator.Override {
		o.Signature = key.Sign(sign.Override, o.SignedBytes())
		return o
	}
	good := by(owner, operator.Override{Key: livelayer.Key, Value: pointer.String(), Network: "lab", Sequence: 3})
	for what, test := range map[string]struct {
		override operator.Override
		data     []byte
		ok, none bool // it is an error or not, and no layer
	}{
		"right":           {good, data, true, false},
		"another owner's": {by(other, good), data, false, true},
		"changed":         {good, append(data[:len(data)-1:len(data)-1], 1), false, true},
		"cut":             {good, data[:100], false, true},
		"another key":     {by(owner, operator.Override{Key: "name/x", Value: pointer.String(), Network: "lab", Sequence: 3}), data, false, true},
		"no pointer":      {by(owner, operator.Override{Key: livelayer.Key, Value: "later", Network: "lab", Sequence: 3}), data, false, true},
		"taken back":      {by(owner, operator.Override{Key: livelayer.Key, Network: "lab", Sequence: 4}), data, true, true},
	} {
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/live.json":
				_ = json.NewEncoder(w).Encode(test.override)
			case "/" + livestore.HTTPDir + pointer.Digest.String():
				_, _ = w.Write(test.data)
			default:
				http.NotFound(w, r)
			}
		}))
		disk := t.TempDir()
		files := map[string][]byte{operator.SavedFile: test.override.Append(nil), livestore.SavedDir + "/" + pointer.Digest.String() + ".tar": test.data}
		for name, data := range files {
			file := filepath.Join(disk, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n := newNode()
		n.boot.Host, n.boot.SavedNetwork = netip.MustParseAddrPort(host.Listener.Addr().String()), "lab"
		got, err := n.fetchLive(t.Context(), public)
		if (err == nil) != test.ok || (len(got.Off) == 0) != test.none {
			t.Errorf("from the boot host, %s: %+v, %v", what, got, err)
		}
		if !test.none && n.layerNetwork != "lab" {
			t.Errorf("from the boot host, %s: of the network %q", what, n.layerNetwork)
		}
		got, err = n.savedLive(disk, public)
		if test.override.Key != livelayer.Key {
			test.ok = true // it is about something else
		}
		if (err == nil) != test.ok || (len(got.Off) == 0) != test.none {
			t.Errorf("from a disk, %s: %+v, %v", what, got, err)
		}
		n.layerNetwork = "field" // as the boot host said, which had no layer
		if got, err := n.savedLive(disk, public); err != nil || len(got.Off) > 0 {
			t.Errorf("on a boot host's other network, %s: %+v, %v", what, got, err)
		}
		n.layerNetwork, n.boot.SavedNetwork = "", "another"
		if got, err := n.savedLive(disk, public); err != nil || len(got.Off) > 0 {
			t.Errorf("on another network, %s: %+v, %v", what, got, err)
		}
		host.Close()
	}
	n := newNode()
	host := httptest.NewServer(http.NotFoundHandler())
	defer host.Close()
	n.boot.Host = netip.MustParseAddrPort(host.Listener.Addr().String())
	if got, err := n.fetchLive(t.Context(), public); err != nil || len(got.Runes) > 0 {
		t.Errorf("where nothing was added: %+v, %v", got, err)
	}
	if got, err := n.savedLive(t.TempDir(), public); err != nil || len(got.Runes) > 0 {
		t.Errorf("a disk without: %+v, %v", got, err)
	}
}
