package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/journal"
	"viver.lan/internal/operator"
)

// In these tests a signature is "signed " and the message.
func checkEntry(message, signature []byte) error {
	if !bytes.Equal(signature, append([]byte("signed "), message...)) {
		return errors.New("forged")
	}
	return nil
}

func entry(key, value string, sequence uint64) operator.Override {
	e := operator.Override{Network: network, Key: key, Value: value, Sequence: sequence}
	e.Signature = append([]byte("signed "), e.SignedBytes()...)
	return e
}

func says(c *Cluster, key, value string) func(map[identity.ID]Member) bool {
	return func(map[identity.ID]Member) bool {
		for _, e := range c.Overrides() {
			if e.Key == key {
				return e.Value == value
			}
		}
		return value == ""
	}
}

func TestOverridesSpread(t *testing.T) {
	t.Parallel()
	var log journal.Journal
	node := func(n int, seeds ...*Cluster) *Cluster {
		cfg := config(t, n)
		for _, s := range seeds {
			cfg.Seeds = append(cfg.Seeds, s.Addr())
		}
		cfg.Verify = checkEntry
		if n == 74 {
			cfg.Verify = nil
		}
		cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), &log), nil))
		c, _ := start(t, cfg)
		return c
	}
	a := node(71)
	b := node(72, a)
	none := node(74, a)
	waitFor(t, a, "three", alive(nodeID(71), nodeID(72), nodeID(74)))

	if err := a.Put(entry("name/x", "lab-1", 10)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, b, "by gossip", says(b, "name/x", "lab-1"))
	late := node(73, b)
	waitFor(t, late, "by the exchange at joining", says(late, "name/x", "lab-1"))
	if err := late.Put(entry("name/x", "lab-2", 11)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, a, "from whoever joined late", says(a, "name/x", "lab-2"))
	if err := a.Put(entry("name/x", "lab-0", 9)); !errors.Is(err, operator.ErrOlder) {
		t.Errorf("an older entry: %v", err)
	}
	if err := none.Put(entry("name/x", "lab-0", 99)); err == nil || len(none.Overrides()) > 0 {
		t.Errorf("without a key overrides are taken: %v, %+v", err, none.Overrides())
	}

	const mallory = "mallorymallorymm"
	forged := entry("name/x", "evil", 12)
	forged.Signature[0]++
	const msgUser = 8
	packet := append([]byte{244, byte(len(label))}, label...)
	packet = append(packet, msgUser, identity.IDSize)
	packet = append(packet, mallory...)
	claims := append(bytes.Clone(packet[:len(packet)-1-identity.IDSize]), 255) // an ID of that many bytes
	throw(t, a, append(claims, make([]byte, 300)...))
	throw(t, a, forged.Append(packet))
	for end := time.Now().Add(3 * time.Minute); !log.Says(mallory); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sender of a forged entry is not named")
		}
	}
	if !says(a, "name/x", "lab-2")(nil) {
		t.Errorf("the forged entry counts: %+v", a.Overrides())
	}
	for _, junk := range [][]byte{nil, {0}, {255, 1}, []byte("\x10a"), []byte("\x10abcdefghijklmnopjunk"), append([]byte{255}, make([]byte, 300)...), append([]byte("\x10a"), make([]byte, 400)...)} {
		a.receiveOverrides(junk)
	}
	if n := len(a.Overrides()); n != 1 {
		t.Errorf("%d overrides: %+v", n, a.Overrides())
	}
}
