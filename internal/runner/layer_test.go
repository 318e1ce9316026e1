package runner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/fstest"

	"viver.lan/internal/control"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/runes"
)

// layerOf is a live layer with these runes.
func layerOf(t *testing.T, files fstest.MapFS) livelayer.Layer {
	t.Helper()
	bundles, errs := runes.Load(files)
	must(t, errors.Join(errs...))
	var archive bytes.Buffer
	must(t, runes.WriteTar(&archive, bundles))
	return livelayer.Layer{Runes: archive.Bytes()}
}

// What comes to a running system is laid, also over its own files, and what was there is
// back when it goes; a runner that is started again in between changes nothing.
func TestNetnsLiveLayer(t *testing.T) {
	if !netbedtest.EnterWithUsers(t) {
		return
	}
	system := bootSystem(t)
	in := func(name string) string { return filepath.Join(system.Root(), name) }
	seen := func(name string) string {
		data, _ := os.ReadFile(in(name))
		return string(data)
	}
	must(t, os.WriteFile(in("etc/motd"), []byte("of the image"), 0o640))
	must(t, os.Symlink("motd", in("etc/issue")))
	layers := map[livelayer.Digest]livelayer.Layer{
		{1}: layerOf(t, fstest.MapFS{
			"a/rune.toml":      {Data: []byte("name = \"a\"\n[settings]\nword = \"what is said\"\n[[service]]\nname = \"s\"\nstart = [\"/bin/sleep\", \"3600\"]\n")},
			"a/files/etc/motd": {Data: []byte("one")}, "a/files/etc/issue": {Data: []byte("one")}, "a/files/etc/new/x.tmpl": {Data: []byte(`{{ .Hostname }} {{ setting "word" "-" }}`)},
		}),
		{2}: layerOf(t, fstest.MapFS{"a/rune.toml": {Data: []byte(`name = "a"`)}, "a/files/etc/motd": {Data: []byte("two")}}),
	}
	one := layers[livelayer.Digest{1}]
	one.Settings = map[string]map[string]string{"a": {"word": "hello"}}
	layers[livelayer.Digest{1}] = one
	must(t, WriteStart(filepath.Join(stateDir, StartFile), Start{Facts: runes.Facts{Hostname: "node-a", Init: "other"}}))
	must(t, os.WriteFile(filepath.Join(stateDir, StateFile), []byte(`{"settled": true}`), 0o644))
	c := Config{System: system, Bundles: readBundles(t, fstest.MapFS{}), Layer: func(d livelayer.Digest) (livelayer.Layer, error) {
		l, ok := layers[d]
		if !ok {
			return l, os.ErrNotExist
		}
		return l, nil
	}}
	status := func(l *control.Live) *control.Status {
		s := statusOf(0, member(0))
		s.Live = l
		return s
	}
	r := live(t, c)
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{1}}) // not here yet
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{1}, Here: true})
	until(t, "the first layer is used", func() bool {
		return seen("etc/motd") == "one" && seen("etc/issue") == "one" && seen("etc/new/x") == "node-a hello" && len(processes(t)) == 1
	})
	before := processes(t)
	r.end()

	// One that cannot read it changes nothing until it can.
	one = layers[livelayer.Digest{1}]
	delete(layers, livelayer.Digest{1})
	r = live(t, c)
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{1}, Here: true})
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{1}, Here: true})
	if seen("etc/motd") != "one" || !reflect.DeepEqual(processes(t), before) {
		t.Errorf("without the layer motd is %q, services %v, before %v", seen("etc/motd"), processes(t), before)
	}
	r.end()
	layers[livelayer.Digest{1}] = one

	r = live(t, c)
	r.network.statuses <- status(nil)                                                    // its daemon is started again, too
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{3}, Here: true}) // cannot be read
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{1}, Here: true})
	if seen("etc/motd") != "one" || !reflect.DeepEqual(processes(t), before) {
		t.Errorf("after a restart motd is %q, services %v, before %v", seen("etc/motd"), processes(t), before)
	}
	r.network.statuses <- status(&control.Live{Digest: livelayer.Digest{2}, Here: true})
	until(t, "the second layer is used", func() bool { return seen("etc/motd") == "two" && len(processes(t)) == 0 })
	until(t, "what the first one had is gone", func() bool {
		link, err := os.Readlink(in("etc/issue"))
		return err == nil && link == "motd" && seen("etc/new/x") == ""
	})
	r.network.statuses <- status(&control.Live{Here: true}) // taken back
	until(t, "all is as it was", func() bool { return seen("etc/motd") == "of the image" && len(currentState(t).Runes) == 0 })
	if info, err := os.Stat(in("etc/motd")); err != nil || info.Mode() != 0o640 {
		t.Errorf("motd: %v, %v", info, err)
	}
	r.end()
}

// A layer that the machine booted with stays only on the network that it was signed for.
func TestLayerFor(t *testing.T) {
	booted, other, none := livelayer.Digest{1}, livelayer.Digest{2}, livelayer.Digest{}
	start := Start{Layer: booted, LayerNetwork: "lab"}
	for _, test := range []struct {
		name    string
		network string
		live    *control.Live
		used    livelayer.Digest
		want    livelayer.Digest
		known   bool
	}{
		{"no network yet", "", nil, booted, none, false},
		{"its own network, of which nothing is known yet", "lab", nil, booted, none, false},
		{"a newer one is not here yet", "lab", &control.Live{Digest: other}, booted, none, false},
		{"a newer one is here", "lab", &control.Live{Digest: other, Here: true}, booted, other, true},
		{"it was taken back", "lab", &control.Live{Here: true}, booted, none, true},
		{"another network without one", "field", nil, booted, none, true},
		{"another network, whose own is not here yet", "field", &control.Live{Digest: other}, booted, none, true},
		{"another network, whose own is here", "field", &control.Live{Digest: other, Here: true}, booted, other, true},
		{"the daemon is started again", "field", nil, other, none, false},
	} {
		if got, known := start.layerFor(&control.Status{Network: test.network, Live: test.live}, test.used); got != test.want || known != test.known {
			t.Errorf("%s: %s, %v", test.name, got, known)
		}
	}
}
