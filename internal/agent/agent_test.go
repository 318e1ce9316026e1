package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/metrics"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

func TestFaultsAreAMetric(t *testing.T) {
	set := new(metrics.Set)
	countPanics(set, map[string]func() uint64{"viverd": func() uint64 { return 2 }, "vfield": func() uint64 { return 0 }})
	answer := httptest.NewRecorder()
	set.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`viver_panics_total{program="viverd"} 2`, `viver_panics_total{program="vfield"} 0`} {
		if !strings.Contains(answer.Body.String(), want) {
			t.Errorf("the metrics lack %s:\n%s", want, answer.Body)
		}
	}
}

// daemon is a block daemon that only has a status.
type daemon struct{ notify.Notifier }

func (*daemon) Status() control.Status { return control.Status{Hostname: "node-9"} }

func (d *daemon) MemberStatus() control.Status { return d.Status() }
func (*daemon) Open(context.Context, string) (io.ReadSeeker, error) {
	return nil, os.ErrNotExist
}
func (*daemon) PutOverride(operator.Override) error { return nil }

func (*daemon) SetRoles(context.Context, []roles.Name) error { return nil }

// The agent and the block daemon start together: that nobody listens yet is no answer.
func TestTheFirstStatusIsWaitedFor(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() {
		served <- control.Serve(ctx, socket, -1, &daemon{}, slog.New(slog.DiscardHandler))
	})
	if s := firstStatus(ctx, control.NewClient(socket)); s == nil || s.Hostname != "node-9" {
		t.Errorf("the first status is %+v", s)
	}
	cancel()
	<-served
	if s := firstStatus(ctx, control.NewClient(socket)); s != nil {
		t.Errorf("after the end the first status is %+v", s)
	}
}

// What is served ends when the machine has moved, and goes on as it was while the
// block daemon does not answer.
func TestAgentFollowsTheBlockDaemon(t *testing.T) {
	lease := bootnet.Lease{Address: netip.MustParsePrefix("10.77.0.9/16"), DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}
	here := place{boot: &control.Boot{MAC: ether.MAC{2, 5: 9}}, network: bootnet.Network{Card: bootnet.Card{Index: 3}, Lease: lease}}
	log := slog.New(slog.DiscardHandler)
	a := &agent{log: log, here: here, overrides: newOverrides(here.boot, &boothost.Config{}, log), ranking: newRanking(here, log)}
	link := control.BootNetwork{Holder: bootnet.Card{Index: 3}, Address: lease.Address, DNS: lease.DNS}
	moved, bridged := link, link
	moved.Address, bridged.Holder.Index = netip.MustParsePrefix("10.77.0.10/16"), 4
	for _, step := range []struct {
		name   string
		status *control.Status
		lost   error
		want   error
		page   string // what the status page says
		rank   int
	}{
		{"not yet", nil, os.ErrNotExist, nil, "file does not exist", boothost.Hosts},
		{"here", &control.Status{Hostname: "node-9", Panics: 7, BootNetwork: &link}, nil, nil, "node-9", 1},
		{"gone for a while", nil, io.EOF, nil, "EOF", 1},
		{"a volume without a machine", &control.Status{Hostname: "node-9"}, nil, nil, "node-9", 1},
		{"pieces are out of reach", &control.Status{OutOfReach: 1, BootNetwork: &link}, nil, nil, "out_of_reach", boothost.Hosts},
		{"another address", &control.Status{BootNetwork: &moved}, nil, errMoved, "", boothost.Hosts},
		{"on a bridge", &control.Status{BootNetwork: &bridged}, nil, errMoved, "", boothost.Hosts},
	} {
		if err := a.take(step.status, step.lost); err != step.want {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
		if a.ranking.decide(); a.ranking.current() != step.rank {
			t.Errorf("%s: rank %d, want %d", step.name, a.ranking.current(), step.rank)
		}
		if page, err := json.Marshal(a.status()); err != nil || !strings.Contains(string(page), step.page) {
			t.Errorf("%s: the page says %s, %v; want %s", step.name, page, err, step.page)
		}
		if got := a.panics(); (got == 7) != (step.name == "here") {
			t.Errorf("%s: %d faults", step.name, got)
		}
	}
}
