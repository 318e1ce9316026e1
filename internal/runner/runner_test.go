package runner

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"
)

const oneRole = "name = \"a\"\n[[role]]\nname = \"server\"\nwants = \"one\"\n[[service]]\nname = \"web\"\nrole = \"server\"\nstart = [\"/bin/web\"]\n"

// A service that ends while the members are not known again stays what it is: to a keeper
// that is shown nothing, no role would be this machine's.
func TestMissingServiceBeforeAnythingIsKnown(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := Config{Log: log, Bundles: readBundles(t, fstest.MapFS{"a/rune.toml": {Data: []byte(oneRole)}})}
	all, err := c.Bundles()
	if err != nil {
		t.Fatal(err)
	}
	k := &running{keeper: &keeper{bundle: all[0], refused: refused(nil, "a"), views: make(chan view, 1)}}
	r := &runner{config: c, keepers: map[string]*running{"a": k}, settled: settling{before: true}, missing: make(chan []string),
		tools: tools{board: &board{file: filepath.Join(t.TempDir(), "runes.json"), log: log}, log: log}}
	ctx, cancel := context.WithCancel(t.Context())
	words, done := make(chan word), make(chan error)
	go func() { done <- r.follow(ctx, words) }()
	words <- word{status: statusOf(0, member(0))}
	r.missing <- []string{"a"}
	r.missing <- nil // the first one is seen to
	cancel()
	<-done
	if len(k.views) > 0 {
		t.Errorf("the rune is shown %+v", <-k.views)
	}
}
