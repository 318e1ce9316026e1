package outsider

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"viver.lan/qemu-tests/harness/lan"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestTwoOutsiders lets two kernels talk to each other through the switch.
func TestTwoOutsiders(t *testing.T) {
	sw := lan.New(nil)
	t.Cleanup(sw.Close) // after the outsiders have ended
	Start(t, sw, Config{Name: "a", MAC: "02:00:00:00:00:0a", Address: netip.MustParsePrefix("10.9.0.1/24")}, "sleep", "600")
	b := Start(t, sw, Config{Name: "b", MAC: "02:00:00:00:00:0b", Address: netip.MustParsePrefix("10.9.0.2/24")},
		"bash", "-c", "until ip neigh show dev "+LinkName+" | grep 02:00:00:00:00:0a; do (exec 3<>/dev/tcp/10.9.0.1/9); sleep 0.1; done; sleep 600")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !strings.Contains(b.Log(), "02:00:00:00:00:0a") {
		if ctx.Err() != nil {
			t.Fatalf("b never heard of a:\n%s", b.Log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}
