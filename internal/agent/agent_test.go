package agent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func TestFaultsAreAMetric(t *testing.T) {
	registry := prometheus.NewRegistry()
	countPanics(registry, map[string]func() uint64{"viverd": func() uint64 { return 2 }, "vfield": func() uint64 { return 0 }})
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`viver_panics_total{program="viverd"} 2`, `viver_panics_total{program="vfield"} 0`} {
		if !strings.Contains(answer.Body.String(), want) {
			t.Errorf("the metrics lack %s:\n%s", want, answer.Body)
		}
	}
}
