package runner

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"viver.lan/internal/booted"
	"viver.lan/internal/control"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
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

// A runner that is started again may have a block daemon that was, too, and knows nobody
// yet: it claims nothing before it has seen the members for a while.
func TestRestartedRunnerWaitsForTheMembers(t *testing.T) {
	process, dir := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(process, "root"), 0o755),
		WriteStart(filepath.Join(dir, StartFile), Start{Facts: runes.Facts{Hostname: "node-a", Init: "other"}}),
		os.WriteFile(filepath.Join(dir, StateFile), []byte(`{"settled": true}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	many := fstest.MapFS{"z/rune.toml": {Data: []byte("name = \"z\"\n[[role]]\nname = \"last\"\nwants = \"one\"\n")}}
	for i := range roles.MaxClaims {
		name := string(rune('a' + i))
		many[name+"/rune.toml"] = &fstest.MapFile{Data: []byte("name = \"" + name + "\"\n[[role]]\nname = \"server\"\nwants = \"one\"\n")}
	}
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNetwork{statuses: make(chan *control.Status)}
		c := Config{Log: slog.New(slog.DiscardHandler), Network: n, System: booted.System{Process: process}, Dir: dir, Bundles: readBundles(t, many)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- Run(ctx, c) }()
		n.statuses <- statusOf(0, member(0))
		synctest.Wait()
		if len(n.told) > 0 {
			t.Errorf("it claims %v at once", n.told)
		}
		time.Sleep(settleFirst)
		synctest.Wait()
		if len(n.told) != roles.MaxClaims { // and the others do not cost it these
			t.Errorf("it claims %v when the members are known", n.told)
		}
		if s, err := ReadState(filepath.Join(dir, StateFile)); err != nil || len(s.Held) != len(n.told) || !strings.Contains(strings.Join(s.Problems, ""), ": z/last; pin") {
			t.Errorf("%+v, %v: want the role that is too many", s, err)
		}
		cancel()
		<-done
	})
}

// failing starts nothing.
type failing struct{ services }

func (failing) start(context.Context, ServiceState) error { return errors.New("no such program") }
func (failing) conditions(context.Context, []string) (map[string]condition, error) {
	return nil, nil
}

// A service that cannot be started is tried again when the keeper says so, not whenever
// somebody looks which ones have ended.
func TestServiceThatCannotStartIsNotMissing(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	b := &board{file: filepath.Join(t.TempDir(), "runes.json"), log: log}
	bundles, err := readBundles(t, fstest.MapFS{"a/rune.toml": {Data: []byte("name = \"a\"\n[[service]]\nname = \"web\"\nstart = [\"/bin/web\"]\n")}})()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "bin"), 0o755), os.WriteFile(filepath.Join(root, "bin/web"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	k := &keeper{bundle: bundles[0], have: RuneState{Name: "a", Armed: true}, tools: tools{board: b, log: log, services: failing{},
		open: func() (*runes.System, error) { return runes.OpenSystem(runes.Target{Root: root}) }}}
	if err := k.converge(t.Context(), view{up: true}); err == nil || !strings.Contains(b.get("a").Reason, "no such program") {
		t.Errorf("%v, %+v", err, b.get("a"))
	}
	if missing := b.observe(nil); len(missing) > 0 {
		t.Errorf("%v is missing", missing)
	}
}

// What could not be written is written with the next change, be it none.
func TestBoardIsWrittenInTheEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "full")
	b := &board{file: filepath.Join(dir, "runes.json"), ports: filepath.Join(dir, "ports"), log: slog.New(slog.DiscardHandler)}
	b.put(RuneState{Name: "a"})
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.put(RuneState{Name: "a"})
	if s, err := ReadState(b.file); err != nil || len(s.Runes) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
