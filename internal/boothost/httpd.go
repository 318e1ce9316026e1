package boothost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"time"

	template "github.com/DataDog/datadog-agent/pkg/template/html"

	"viver.lan/internal/contain"
	"viver.lan/internal/manifest"
)

// Limits of the HTTP server.
const (
	httpPort        = 80   // unless Config says otherwise
	httpConnections = 1024 // at once, from all
	httpPerClient   = 32   // at once, from one address; firmware opens one, browsers six
	httpHeaderTime  = 10 * time.Second
	httpBodyTime    = 2 * time.Second // for a request's body, which is not used
	httpIdleTime    = time.Minute
	httpHeaderBytes = 16 << 10
	httpStall       = 30 * time.Second // longest time without progress
	httpGrace       = 2 * time.Second  // for the last answers at the end
)

// httpServer serves the catalog, the status and the metrics, to read only.
type httpServer struct {
	host     *Host
	slowest  slowness
	listener net.Listener
	page     *template.Template
}

func newHTTPServer(h *Host) *httpServer {
	return &httpServer{host: h, slowest: slowness{rate: httpSlowest, grace: slowGrace, now: time.Now}}
}

func (s *httpServer) name() string { return "http" }

func (s *httpServer) open(ctx context.Context) (err error) {
	if s.page, err = newPage(); err != nil {
		return err
	}
	var lc net.ListenConfig
	addr := netip.AddrPortFrom(s.host.cfg.Address.Addr(), s.host.cfg.HTTPPort)
	l, err := lc.Listen(ctx, "tcp4", addr.String())
	if err != nil {
		return err
	}
	s.listener = limit(bulk{l.(*net.TCPListener)}, httpConnections, httpPerClient)
	return nil
}

func (s *httpServer) serve(ctx context.Context) error {
	if ctx.Err() != nil {
		return s.listener.Close()
	}
	server := &http.Server{
		Handler:           contain.Handler(s.host.cfg.Log, s),
		ReadHeaderTimeout: httpHeaderTime,
		IdleTimeout:       httpIdleTime,
		MaxHeaderBytes:    httpHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConnection,
		ErrorLog:          slog.NewLogLogger(s.host.cfg.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.Background(), httpGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(s.listener)
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServeHTTP implements http.Handler. There is no http.ServeMux, because it
// redirects names with doubled slashes and UEFI HTTP Boot follows no redirect.
func (s *httpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	progress(w, time.Now().Add(httpStall))
	if r.ContentLength != 0 { // only net/http reads it, at the end, so that the connection can be used again
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(httpBodyTime))
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this host only answers GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	switch name := squeeze(r.URL.Path); {
	case name == "":
		s.servePage(w)
	case name == "status":
		s.serveStatus(w)
	case name == "metrics" && s.host.cfg.Metrics != nil:
		s.host.cfg.Metrics.ServeHTTP(w, r)
	default:
		s.serveFile(w, r, name)
	}
}

func (s *httpServer) serveFile(w http.ResponseWriter, r *http.Request, name string) {
	log := s.host.cfg.Log.With("file", clip(name), "client", r.RemoteAddr)
	client := addrOf(r)
	res, ok := s.host.find(name, client, r.Method == http.MethodHead)
	if !ok {
		log.Debug("http: no such file")
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	if to, ok := s.host.redirect(r, name, client); ok {
		log.Debug("http: sent to another node", "to", to)
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	var err error
	switch name {
	case s.host.catalog.imagePath(manifest.NICs):
		res, err = forCard(r.Context(), res, r.URL.Query())
	case s.host.catalog.imagePath(uefiName):
		res, err = s.host.catalog.forUEFI(r.Context(), res)
	}
	if err != nil {
		log.Debug("http: drivers of all network cards", "error", err)
	}
	file, err := res.open(r.Context())
	if err != nil {
		log.Warn("http: open failed", "error", err)
		// No Retry-After: iPXE would repeat the request for ever inside one
		// command, and its script could neither back off nor try another host.
		http.Error(w, "the file cannot be read now", http.StatusServiceUnavailable)
		return
	}
	defer file.Close()
	if err := s.host.enlargeSegments(r); err != nil {
		log.Info("http: the file goes in small segments", "error", err)
	}
	w.Header().Set("Content-Type", contentType(res.name))
	var changed time.Time // unknown: made by us, may be different next time
	if res.etag == "" {
		w.Header().Set("Cache-Control", "no-cache")
	} else {
		w.Header().Set("ETag", res.etag)
		changed = s.host.catalog.image.Created
	}
	start := time.Now()
	body := &progressReader{pacedReader: newPacedReader(file, s.slowest), w: w}
	http.ServeContent(w, r, "", changed, body)
	if r.Method == http.MethodHead {
		return
	}
	s.host.counters.sent(s.name(), body.n)
	s.host.counters.transfer(s.name(), errors.Join(body.err, r.Context().Err()))
	s.host.machines.noteTransfer(client, res.name, body.n)
	if body.err != nil {
		log.Warn("http: read failed", "bytes", body.n, "error", body.err)
		return
	}
	log.Debug("http: sent", "bytes", body.n, "range", r.Header.Get("Range"), "seconds", time.Since(start).Seconds())
}

// addrOf returns the address of an HTTP client, the zero Addr if there is none.
func addrOf(r *http.Request) netip.Addr {
	client, _ := netip.ParseAddrPort(r.RemoteAddr)
	return client.Addr().Unmap()
}

func (s *httpServer) serveStatus(w http.ResponseWriter) {
	data, err := json.MarshalIndent(s.host.status(), "", "  ")
	if err != nil {
		http.Error(w, "status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(data, '\n'))
}

// newPage reads the status page. Its template engine calls no methods of what it shows.
func newPage() (*template.Template, error) {
	return template.New("page.html").Funcs(template.FuncMap{
		"clock": func(t time.Time) string { return t.Format(time.TimeOnly) },
		"known": func(a netip.Addr) string {
			if !a.IsValid() {
				return ""
			}
			return a.String()
		},
	}).ParseFS(assets, "assets/page.html")
}

func (s *httpServer) servePage(w http.ResponseWriter) {
	view := pageView{Status: s.host.Status()}
	if s.host.cfg.Warning != nil {
		view.Warning = s.host.cfg.Warning()
	}
	if s.host.cfg.Status != nil {
		node, err := json.MarshalIndent(s.host.cfg.Status(), "", "  ")
		if err != nil {
			node = fmt.Appendf(nil, "status: %v", err)
		}
		view.Node = string(node)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err := s.page.ExecuteTemplate(w, "page.html", view); err != nil {
		s.host.cfg.Log.Debug("http: page not sent", "error", err)
	}
}

// contentType keeps browsers from guessing. UEFI HTTP Boot goes by the name's
// ending, .efi.
func contentType(name string) string {
	switch {
	case name == scriptName, name == grubName, name == settingsName, path.Dir(name) == externalDir:
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// progress moves the connection's deadline.
func progress(w http.ResponseWriter, until time.Time) {
	_ = http.NewResponseController(w).SetWriteDeadline(until) // not every writer has one
}

// progressReader moves the deadline with every read: a transfer may be long, but
// it may neither stall nor be too slow as a whole.
type progressReader struct {
	*pacedReader
	w http.ResponseWriter
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.pacedReader.Read(b)
	until := p.limit.now().Add(httpStall)
	if p.due.Before(until) {
		until = p.due
	}
	progress(p.w, until)
	return n, err
}
