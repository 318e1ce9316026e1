package livechange

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/fstest"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/runes"
)

func TestOver(t *testing.T) {
	load := func(files fstest.MapFS) []runes.Bundle {
		t.Helper()
		bundles, errs := runes.Load(files)
		if len(errs) > 0 {
			t.Fatal(errors.Join(errs...))
		}
		return bundles
	}
	base := load(fstest.MapFS{"a/rune.toml": {Data: []byte(`name = "a"`)}, "b/rune.toml": {Data: []byte(`name = "b"`)}})
	var archive bytes.Buffer
	if err := runes.WriteTar(&archive, load(fstest.MapFS{
		"b/rune.toml": {Data: []byte("name = \"b\"\ndescription = \"new\"")}, "c/rune.toml": {Data: []byte(`name = "c"`)}, "c/files/x": {}})); err != nil {
		t.Fatal(err)
	}
	layer := livelayer.Layer{Runes: archive.Bytes(), Off: []string{"a", "none"}, Settings: map[string]map[string]string{"b": {"x": "2", "z": ""}, "c": {"x": "3"}}}
	for _, test := range []struct {
		added func(runes.Bundle) runes.Bundle
		want  []string
	}{{nil, []string{"b new false", "c  false"}}, {runes.Bundle.AllLive, []string{"b new false", "c  true"}}} {
		all, settings, wrong := Over(base, map[string]map[string]string{"b": {"x": "1", "y": "1"}}, layer, test.added)
		var names []string
		for _, b := range all {
			names = append(names, fmt.Sprint(b.Name, " ", b.Description, " ", b.Lives()))
		}
		if !slices.Equal(names, test.want) || len(wrong) > 0 {
			t.Errorf("bundles %q, want %q; %v", names, test.want, wrong)
		}
		if want := map[string]map[string]string{"b": {"x": "2", "y": "1", "z": ""}, "c": {"x": "3"}}; !reflect.DeepEqual(settings, want) {
			t.Errorf("settings %v", settings)
		}
	}
	if all, _, wrong := Over(base, nil, livelayer.Layer{}, nil); len(all) != 2 || len(wrong) > 0 {
		t.Errorf("without a layer: %v, %v", all, wrong)
	}
	if all, _, wrong := Over(base, nil, livelayer.Layer{Runes: []byte("damaged")}, nil); len(all) != 2 || len(wrong) == 0 {
		t.Errorf("with a damaged one: %v, %v", all, wrong)
	}
}
