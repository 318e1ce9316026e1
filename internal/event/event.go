// Package event holds the typed things that happen on a node.
//
// Whoever wants to know how a boot or a transfer goes (console, status page,
// benchmarks, tests) reads events; nobody parses log text. The invariant: one
// occurrence is one event, and one event is one line of JSON.
package event

import (
	"encoding/json"
	"fmt"

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

// Lost reports that so many events before it were not written, because a reader took
// none for too long.
type Lost struct {
	Events int `json:"events"`
}

// Kind implements Event.
func (Stage) Kind() string        { return "stage" }
func (Node) Kind() string         { return "node" }
func (Transfer) Kind() string     { return "transfer" }
func (Waiting) Kind() string      { return "waiting" }
func (Independence) Kind() string { return "independence" }
func (Attached) Kind() string     { return "attached" }
func (Service) Kind() string      { return "service" }
func (Member) Kind() string       { return "member" }
func (Lost) Kind() string         { return "lost" }

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
	kinds := map[string]func([]byte) (Event, error){
		"stage": decode[Stage], "node": decode[Node], "transfer": decode[Transfer], "waiting": decode[Waiting],
		"independence": decode[Independence], "attached": decode[Attached], "service": decode[Service],
		"member": decode[Member], "lost": decode[Lost],
	}
	if of := kinds[r.Kind]; of != nil {
		return of(r.Data)
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
