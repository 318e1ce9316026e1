// Package event holds the typed things that happen on a node.
//
// Whoever wants to know how a boot or a transfer goes (console, status page,
// benchmarks, tests) reads events; nobody parses log text. The invariant: one
// occurrence is one event, and one event is one line of JSON.
package event

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
)

// Event is one thing that happened. The concrete types are the ones below.
type Event interface {
	// Kind is the stable name of the event's type.
	Kind() string
}

// State says how far a boot stage has come.
type State string

// The states of a stage.
const (
	Started  State = "started"
	Done     State = "done"
	Degraded State = "degraded" // failed, and the boot goes on without it
	Retrying State = "retrying"
	Stopped  State = "stopped" // failed, and the boot ends in the rescue shell
)

// Stage reports the progress of one boot stage.
type Stage struct {
	Name    string  `json:"name"`
	State   State   `json:"state"`
	Seconds float64 `json:"seconds,omitempty"` // time the stage took
	Detail  string  `json:"detail,omitempty"`  // a sentence for people
}

// Node says who this machine is, as soon as that is known.
type Node struct {
	Hostname string    `json:"hostname"`
	MAC      ether.MAC `json:"mac"`
	Address  string    `json:"address"`
	Firmware string    `json:"firmware"` // "bios" or "uefi"
	BootedBy string    `json:"booted_by"`
}

// Transfer is a snapshot of the node's traffic, in bytes of payload.
type Transfer struct {
	FromOrigin uint64 `json:"from_origin"`
	FromPeers  uint64 `json:"from_peers"`
	FromMedium uint64 `json:"from_medium"`
	Sent       uint64 `json:"sent"`
	Have       int    `json:"have"`   // pieces held
	Pieces     int    `json:"pieces"` // pieces of the image
	Peers      int    `json:"peers"`
}

// Waiting reports a read that nobody has answered for a while, and what is known of
// the piece that it waits for.
type Waiting struct {
	Piece   int        `json:"piece"`
	Seconds float64    `json:"seconds"`
	Reason  WaitReason `json:"reason"`
	// Known counts the peers known, connected or not; Answering those of them from
	// which something came lately; Holders those of these that have the piece.
	Known     int `json:"known"`
	Answering int `json:"answering"`
	Holders   int `json:"holders"`
	// Asked names the connected peers that the piece is requested from.
	Asked []string `json:"asked"`
	// Silent is for how long nothing has come, in seconds: from any of those asked
	// when the reason is Requested, else from any peer.
	Silent float64 `json:"silent"`
}

// WaitReason says why a piece is not here.
type WaitReason string

// The reasons.
const (
	NoPeer        WaitReason = "no_peer"        // none is known
	NeverAnswered WaitReason = "never_answered" // none that is known, since the start
	NoAnswer      WaitReason = "no_answer"      // none that is known, for a while
	Requested     WaitReason = "requested"      // it should come, or others are asked soon
	NoHolder      WaitReason = "no_holder"      // none that answers has the piece
	NoneSends     WaitReason = "none_sends"     // those that have it take no request
)

// Independence reports whether the network can live without its first node. Nodes
// are those other than the first that live.
type Independence struct {
	Independent bool `json:"independent"`
	Pieces      int  `json:"pieces"`   // of the image
	Missing     int  `json:"missing"`  // of them are kept by no node
	Replicas    int  `json:"replicas"` // nodes that keep the rarest piece
	Nodes       int  `json:"nodes"`    // that keep pieces
	Unproved    int  `json:"unproved"` // nodes that have not proved what they claim to keep
	// Short says that the nodes together have too little room: they offer so many
	// bytes, and the image needs so many.
	Short   bool  `json:"short"`
	Offered int64 `json:"offered"`
	Needed  int64 `json:"needed"`
}

// Attached reports that the root disk appeared or came back.
type Attached struct {
	Device string `json:"device"`
	Again  bool   `json:"again"` // re-attached after a crash
}

// Up reports that this machine's boot is over.
type Up struct {
	Reason string `json:"reason"` // how that is known, for people
	Read   int64  `json:"read"`   // bytes of the root disk that the boot read
	// Record is what those were, as package bootrecord encodes it.
	Record []byte `json:"record"`
}

// Service reports a service of the boot host that began, ended or refused to.
type Service struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
}

// Member reports a node that joined or left the cluster.
type Member struct {
	ID     identity.ID `json:"id"`
	Joined bool        `json:"joined"`
}

// Kind implements Event.
func (Stage) Kind() string        { return "stage" }
func (Node) Kind() string         { return "node" }
func (Transfer) Kind() string     { return "transfer" }
func (Waiting) Kind() string      { return "waiting" }
func (Independence) Kind() string { return "independence" }
func (Attached) Kind() string     { return "attached" }
func (Up) Kind() string           { return "up" }
func (Service) Kind() string      { return "service" }
func (Member) Kind() string       { return "member" }

// Record is an event as it travels: one line of JSON.
type Record struct {
	// Uptime is the time since the kernel started, in seconds.
	Uptime float64 `json:"uptime"`
	// Program that emitted the event: "uinit", "vfield" or "viverd".
	Program string          `json:"program"`
	Kind    string          `json:"kind"`
	Data    json.RawMessage `json:"data"`
}

// Decode returns the record's event.
func (r Record) Decode() (Event, error) {
	switch r.Kind {
	case "stage":
		return decode[Stage](r.Data)
	case "node":
		return decode[Node](r.Data)
	case "transfer":
		return decode[Transfer](r.Data)
	case "waiting":
		return decode[Waiting](r.Data)
	case "independence":
		return decode[Independence](r.Data)
	case "attached":
		return decode[Attached](r.Data)
	case Up{}.Kind():
		return decode[Up](r.Data)
	case "service":
		return decode[Service](r.Data)
	case "member":
		return decode[Member](r.Data)
	}
	return nil, fmt.Errorf("event of unknown kind %q", r.Kind)
}

func decode[E Event](data []byte) (Event, error) {
	var e E
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("%s event: %w", e.Kind(), err)
	}
	return e, nil
}

// Log hands every event to its sinks. The zero value and the nil pointer
// discard events, so a library never has to check whether anyone listens.
type Log struct {
	program string
	uptime  func() time.Duration

	mu    sync.Mutex
	sinks []io.Writer
}

// NewLog returns a log for the named program. uptime tells the time since the
// kernel started; each sink gets one line per event and a sink that fails is
// ignored, because reporting must never stop a boot.
func NewLog(program string, uptime func() time.Duration, sinks ...io.Writer) *Log {
	return &Log{program: program, uptime: uptime, sinks: sinks}
}

// AddSink adds a reader of all later events.
func (l *Log) AddSink(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinks = append(l.sinks, w)
}

// Emit reports e to all sinks.
func (l *Log) Emit(e Event) {
	if l == nil || l.uptime == nil {
		return
	}
	data, err := json.Marshal(e)
	if err != nil {
		return // the types above always marshal
	}
	line, err := json.Marshal(Record{Uptime: l.uptime().Seconds(), Program: l.program, Kind: e.Kind(), Data: data})
	if err != nil {
		return
	}
	line = append(line, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.sinks {
		_, _ = w.Write(line) // a sink that fails is no reason to stop
	}
}
