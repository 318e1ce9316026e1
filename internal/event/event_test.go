package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity/identitytest"
)

func TestEveryEventTravels(t *testing.T) {
	events := []Event{
		Stage{Name: "network", State: Done, Seconds: 1.5, Detail: "up"},
		Node{Hostname: "node-1", MAC: ether.MAC{0x52, 0x54, 5: 1}, Firmware: "uefi"},
		Transfer{FromOrigin: 1, FromPeers: 2, FromMedium: 3, Sent: 4, Have: 5, Pieces: 6, Peers: 7},
		Waiting{Piece: 3, Seconds: 6, Asked: []string{"10.77.0.1"}, Reason: "1 peer known, asked 10.77.0.1"},
		Independence{Independent: true, Pieces: 9, Replicas: 2, Nodes: 3},
		Attached{Device: "/dev/nbd0", Again: true},
		Service{Name: "dhcp", State: Stopped, Detail: "a foreign server"},
		Member{ID: identitytest.ID("node-2"), Joined: true},
		Lost{Events: 2},
	}
	var out bytes.Buffer
	log := NewLog("uinit", func() time.Duration { return 2 * time.Second }, &out)
	for _, e := range events {
		log.Emit(e)
	}
	dec := json.NewDecoder(&out)
	for _, want := range events {
		var r Record
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		got, err := r.Decode()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %+v, %v", want.Kind(), got, err)
		}
		if r.Uptime != 2 || r.Program != "uinit" {
			t.Errorf("record = %+v", r)
		}
	}
}

func TestUnknownKindIsAnError(t *testing.T) {
	if _, err := (Record{Kind: "parade"}).Decode(); err == nil {
		t.Error("decoded an event nobody knows")
	}
}

type brokenSink struct{}

func (brokenSink) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestABrokenSinkStopsNobody(t *testing.T) {
	var out bytes.Buffer
	log := NewLog("uinit", func() time.Duration { return 0 }, brokenSink{}, &out)
	log.Emit(Member{ID: identitytest.ID("node-2")})
	if out.Len() == 0 {
		t.Error("the second sink heard nothing")
	}
	var none *Log
	none.Emit(Member{}) // a nil log discards
}

// blockedSink takes nothing until it is told to.
type blockedSink struct {
	free chan struct{}
	bytes.Buffer
}

func (s *blockedSink) Write(b []byte) (int, error) {
	<-s.free
	return s.Buffer.Write(b)
}

// A reader that takes nothing stops nobody who emits; when it reads again it gets
// what has been queued, in order, and how much was lost.
func TestABlockedSinkStopsNobody(t *testing.T) {
	sink := &blockedSink{free: make(chan struct{})}
	var other bytes.Buffer
	log := NewLog("vfield", func() time.Duration { return 0 }, sink, &other)
	const emitted = 3 * maxQueue
	for i := range emitted {
		log.Emit(Waiting{Piece: i})
	}
	if n := bytes.Count(other.Bytes(), []byte("\n")); n != emitted {
		t.Errorf("another sink got %d events of %d", n, emitted)
	}
	blocked := log.sinks[0]
	if len(blocked.queue) > maxQueue {
		t.Errorf("%d lines wait", len(blocked.queue))
	}
	written := blocked.written
	close(sink.free)
	<-written
	log.Emit(Attached{})
	n := 0
	for line := range bytes.Lines(sink.Bytes()) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		switch e, err := r.Decode(); e := e.(type) {
		case Waiting:
			if e.Piece != n {
				t.Fatalf("event %d came after %d others", e.Piece, n)
			}
			n++
		case Lost:
			n += e.Events
		case Attached:
			if n != emitted {
				t.Errorf("of %d events %d were written or are said to be lost", emitted, n)
			}
			return
		default:
			t.Fatal(r, err)
		}
	}
	t.Error("the last event was not written")
}

func TestOpenPort(t *testing.T) {
	root := t.TempDir()
	for port, name := range map[string]string{"vport0p1": "viver.agent\n", "vport0p2": PortName("uinit") + "\n"} {
		dir := filepath.Join(root, "sys/class/virtio-ports", port)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "vport0p2"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	port, err := OpenPort(filepath.Join(root, "sys"), root, PortName("uinit"))
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	if _, err := OpenPort(filepath.Join(root, "sys"), root, PortName("viverd")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent port gives %v", err)
	}
}
