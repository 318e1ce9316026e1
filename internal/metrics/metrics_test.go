package metrics

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// shown is what Prometheus's own parser reads of a set: the value of each count, by its
// counter and the values of its labels in the order of their names.
func shown(t *testing.T, s *Set) map[string]float64 {
	t.Helper()
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if got := expfmt.ResponseFormat(answer.Header()); got.FormatType() != expfmt.TypeTextPlain {
		t.Errorf("the format is %q", got)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(answer.Body.Bytes()))
	if err != nil {
		t.Fatalf("%v:\n%s", err, answer.Body)
	}
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			key := name + " (" + family.GetHelp() + ")"
			for _, label := range m.GetLabel() {
				key += " " + label.GetName() + "=" + label.GetValue()
			}
			values[key] = m.GetCounter().GetValue() // 0 if it were anything but a counter
		}
	}
	return values
}

func TestPrometheusReadsWhatIsCounted(t *testing.T) {
	var s Set
	c := s.Counter("viver_things_total", "Things, by kind.", "kind", "place")
	c.Add(1, "a", "here")
	c.Add(2, "a", "here")
	c.Add(1<<52, "a", "there")
	c.Add(1, "odd \"\\\n{}=,", "")
	s.Counter("viver_asked_total", "Asked for.", "program").Ask(func() uint64 { return 7 }, "viverd")
	s.Counter("viver_plain_total", "No labels.").Add(5)
	s.Counter("viver_things_total", "The same again.").Add(1, "a", "here")

	want := map[string]float64{
		"viver_things_total (Things, by kind.) kind=a place=here":          4,
		"viver_things_total (Things, by kind.) kind=a place=there":         1 << 52,
		"viver_things_total (Things, by kind.) kind=odd \"\\\n{}=, place=": 1,
		"viver_asked_total (Asked for.) program=viverd":                    7,
		"viver_plain_total (No labels.)":                                   5,
	}
	got := shown(t, &s)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%q is %v, want %v", key, got[key], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d counts, want %d: %v", len(got), len(want), got)
	}
}

func TestASetThatNobodySeesCounts(t *testing.T) {
	var none *Set
	none.Counter("viver_things_total", "Things.", "kind").Add(1, "a")
	if got := shown(t, new(Set)); len(got) != 0 {
		t.Errorf("an empty set shows %v", got)
	}
}

func TestCountingSideBySide(t *testing.T) {
	var s Set
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				s.Counter("viver_things_total", "Things.", "kind").Add(1, "a")
			}
			shown(t, &s)
		})
	}
	all.Wait()
	if got := shown(t, &s)["viver_things_total (Things.) kind=a"]; got != 8000 {
		t.Errorf("counted %v of 8000", got)
	}
}
