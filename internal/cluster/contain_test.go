package cluster

import (
	"log/slog"
	"testing"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/identity"
)

// A message that meets a fault is lost, and no lock stays behind: the member goes
// on, in its own view and in that of others.
func TestAFaultEndsOneMessage(t *testing.T) {
	t.Parallel()
	var faults contain.Counter
	cfg := config(t, 81)
	cfg.Log = faults.Watch(slog.New(slog.DiscardHandler))
	cfg.Verify = func(message, signature []byte) error {
		if string(signature) == "bomb" {
			panic("a fault of the signatures")
		}
		return checkEntry(message, signature)
	}
	a, _ := start(t, cfg)
	bomb := entry("name/x", "bomb", 1)
	bomb.Signature = []byte("bomb")
	packet := append([]byte{msgLabel, byte(len(label))}, label...)
	packet = append(append(packet, msgUser, identity.IDSize), "mallorymallorymm"...)
	for ; faults.Total() < 2; time.Sleep(10 * time.Millisecond) {
		throw(t, a, bomb.Append(packet[:len(packet):len(packet)]))
	}
	other := config(t, 82, a.Addr())
	other.Verify = checkEntry
	b, _ := start(t, other)
	waitFor(t, b, "both", alive(nodeID(81), nodeID(82)))
	if err := b.Put(entry("name/x", "lab-1", 2)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, a, "what comes afterwards", says(a, "name/x", "lab-1"))
}
