package contain

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func newLog() (*bytes.Buffer, *Counter, *slog.Logger) {
	var out bytes.Buffer
	c := &Counter{}
	return &out, c, c.Watch(slog.New(slog.NewTextHandler(&out, nil)))
}

// parse has the kind of fault that one packet found.
func parse(b []byte) byte { return b[int(b[0])] }

func TestAPanicIsContainedLoggedAndCounted(t *testing.T) {
	out, c, log := newLog()
	err := Call(log.With("addr", "10.0.0.1"), "a packet", func() error { parse([]byte{255}); return nil })
	var contained *Error
	if !errors.As(err, &contained) || contained.What != "a packet" || !strings.Contains(err.Error(), "index out of range [255]") {
		t.Errorf("the error is %v", err)
	}
	for _, want := range []string{"level=ERROR", "addr=10.0.0.1", "contain.parse contain_test.go:", "contain.TestAPanicIsContainedLoggedAndCounted", "index out of range"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out, want)
		}
	}
	if strings.Contains(out.String(), "runtime.") || strings.Contains(out.String(), "contain.Recover") {
		t.Errorf("%q shows what contains it", out)
	}
	size := out.Len()
	for range 1000 { // the same again fills no log
		Do(log.WithGroup("g"), "a packet", func() { parse([]byte{255}) })
	}
	if c.Total() != 1001 || out.Len() != size {
		t.Errorf("%d panics, %d bytes of log, want 1001 and %d", c.Total(), out.Len(), size)
	}
	Do(log, "a packet", func() { panic("elsewhere") })
	if c.Total() != 1002 || out.Len() == size {
		t.Errorf("another place: %d panics, %d bytes of log", c.Total(), out.Len())
	}
}

func TestWhatDoesNotPanic(t *testing.T) {
	out, c, log := newLog()
	refused := errors.New("refused")
	if err := Call(log, "x", func() error { return refused }); err != refused {
		t.Errorf("the error became %v", err)
	}
	Do(log, "x", func() {})
	log.Info("news", "error", refused)
	if c.Total() != 0 || !strings.Contains(out.String(), "msg=news error=refused") {
		t.Errorf("%d panics; %s", c.Total(), out)
	}
}

func TestHandler(t *testing.T) {
	_, c, log := newLog()
	server := httptest.NewServer(Handler(log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fault":
			parse([]byte{255})
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	})))
	defer server.Close()
	// On a connection that was used before, a client would ask again by itself.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]bool{"/fault": false, "/abort": false, "/": true} {
		resp, err := client.Get(server.URL + path)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if c.Total() != 1 {
		t.Errorf("%d panics, want 1", c.Total())
	}
}

// A log without counter is written to each time, and nothing is lost.
func TestWithoutCounter(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for range 2 {
		Do(log, "x", func() { panic("boom") })
	}
	if n := strings.Count(out.String(), "boom"); n != 2 {
		t.Errorf("logged %d times: %s", n, &out)
	}
	defer Recover(log, "x", func(error) { t.Error("no panic, and yet told of one") })
}

func TestCountedThoughNobodyReads(t *testing.T) {
	var c Counter
	Do(c.Watch(slog.New(slog.DiscardHandler)), "x", func() { panic("boom") })
	if c.Total() != 1 {
		t.Errorf("%d panics, want 1", c.Total())
	}
}

func TestManyAtOnce(t *testing.T) {
	out, c, log := newLog()
	var mu sync.Mutex
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 100 {
				Do(log, "x", func() {
					mu.Lock()
					defer mu.Unlock()
					panic("boom")
				})
			}
		})
	}
	g.Wait()
	if n := strings.Count(out.String(), "boom"); n != 1 || c.Total() != 800 {
		t.Errorf("logged %d times and counted %d, want 1 and 800", n, c.Total())
	}
}

func TestStackIsBounded(t *testing.T) {
	out, _, log := newLog()
	var deep func(n int)
	deep = func(n int) {
		if n == 0 {
			panic("deep")
		}
		deep(n - 1)
	}
	Do(log, "x", func() { deep(500) })
	if out.Len() > 950 {
		t.Errorf("a line of %d bytes: %s", out.Len(), out)
	}
}
