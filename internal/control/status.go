package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/copies"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
	"viver.lan/internal/identity"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

// Status is what the block daemon says of itself and of all that it knows: the one
// schema of its socket, which docs/status.md describes for programs. Whoever wants
// it in words makes them of these fields. Ages are seconds at the time it was made.
type Status struct {
	ID       identity.ID       `json:"id"`                // follows from this machine's key
	Network  string            `json:"network,omitempty"` // its name, "" when it has none yet
	Hostname string            `json:"hostname"`
	MAC      ether.MAC         `json:"mac"`
	Address  netip.Addr        `json:"address,omitzero"`
	First    bool              `json:"first"`
	Image    string            `json:"image"`
	Infohash manifest.Infohash `json:"infohash"`
	Device   string            `json:"device"` // "" until the root disk is attached
	// Up says how it is known that the machine's boot is over, "" while it is not.
	Up string `json:"up"`
	// BootNetwork is nil, like Firewall and Written, for a volume that is no machine's
	// root disk.
	BootNetwork *BootNetwork `json:"link,omitempty"`
	// Firewall is nil also when the settings leave it to the distribution.
	Firewall *Firewall `json:"firewall,omitempty"`
	// Written is nil until the distribution's root is there.
	Written *Written `json:"written,omitempty"`
	// Lacking says which network cards and disk controllers did not run when the machine
	// booted, and what they need, for people.
	Lacking []string `json:"lacking,omitempty"`
	// Runes are those of which something went wrong at the boot.
	Runes []RuneOutcome `json:"runes,omitempty"`

	Transfer      event.Transfer      `json:"transfer"`
	Independence  event.Independence  `json:"independence"`
	Pinned        int                 `json:"pinned"`                   // pieces this node keeps for the network
	Budget        int64               `json:"budget"`                   // bytes that pieces may take,
	Used          int64               `json:"used"`                     // and do
	StoreError    string              `json:"store_error,omitempty"`    // what is wrong with the piece store, for people; "" for nothing
	Waiting       []event.Waiting     `json:"waiting,omitempty"`        // reads
	OutOfReach    int                 `json:"out_of_reach"`             // pieces that no live machine in reach has
	OriginAnswers bool                `json:"origin_answers"`           // true on the first node
	Panics        uint64              `json:"panics"`                   // faults that ended one connection or packet each; the log has them
	Peers         []Peer              `json:"peers,omitempty"`          // that are connected
	Proofs        Proofs              `json:"proofs"`                   // of copies: what they cost
	ProofFailures []ProofFailure      `json:"proof_failures,omitempty"` // peers that did not prove the copies they claim
	Members       []Member            `json:"members,omitempty"`        // this machine included
	Strangers     []Stranger          `json:"strangers,omitempty"`      // in the gossip; peers that are not ours are others
	Groups        []Group             `json:"groups,omitempty"`         // machines on the link with other images
	Overrides     []operator.Override `json:"overrides,omitempty"`      // of the operator, those taken back included
	// Live is nil where no live layer was ever wanted.
	Live *Live `json:"live,omitempty"`
	// Published is nil where no image was ever published.
	Published *Published `json:"published,omitempty"`
}

// Live is the live layer that the owner wants on all nodes (package livelayer).
type Live struct {
	Version uint64           `json:"version"` // of two the greater is newer
	Digest  livelayer.Digest `json:"digest"`  // zero for none any more
	// Here says that this node has it: it is a file in LiveDir.
	Here   bool   `json:"here"`
	Reason string `json:"reason,omitempty"` // why it is not, for people
}

// BootNetwork is this machine's place on the boot network.
type BootNetwork struct {
	// Card is the one that the machine booted from. Holder is the device that has
	// the address: the card, or what it has become a port of, such as a bridge.
	Card    bootnet.Card `json:"card"`
	Holder  bootnet.Card `json:"holder"`
	Plugged bool         `json:"plugged"` // the card has a carrier
	// The rest is of the Lease.
	Source  bootnet.Source `json:"source"`
	Address netip.Prefix   `json:"address"`
	Server  netip.Addr     `json:"server,omitzero"` // that gave it
	// Viver says that the server is a boot host of VIVER's.
	Viver  bool         `json:"viver"`
	Router netip.Addr   `json:"router,omitzero"`
	DNS    []netip.Addr `json:"dns,omitempty"`
}

// Lease is the address with what came with it, as far as the status has it.
func (n *BootNetwork) Lease() bootnet.Lease {
	return bootnet.Lease{Source: n.Source, Address: n.Address, Server: n.Server, Viver: n.Viver, Router: n.Router, DNS: n.DNS}
}

// Firewall is how VIVER's ports are kept open.
type Firewall struct {
	Open     []string `json:"open,omitempty"`     // chains that have our rules, such as "ip filter INPUT"
	Problems []string `json:"problems,omitempty"` // rules that were needed and could not be put, for people
}

// Written is how full the place is that holds the files written to the root:
// memory or a saved-data disk.
type Written struct {
	Size uint64 `json:"size"` // bytes
	Free uint64 `json:"free"` // bytes
	// Files is how many files fit, and FilesFree how many more do. Both are 0
	// where there is no limit.
	Files     uint64 `json:"files"`
	FilesFree uint64 `json:"files_free"`
}

// scarce is the share, one in so many, below which room is short.
const scarce = 20

// Short reports whether little room is left, for bytes or for files.
func (w *Written) Short() bool {
	return w.Free < w.Size/scarce || w.FilesFree < w.Files/scarce
}

// Used is how much of the place is taken, in per cent, and of which: of the room for bytes
// or of the number of files, whichever is nearer to its end.
func (w *Written) Used() (percent int, of string) {
	share := func(free, all uint64) int {
		if all == 0 || free > all {
			return 0
		}
		return int((all - free) * 100 / all)
	}
	bytes, files := share(w.Free, w.Size), share(w.FilesFree, w.Files)
	if files > bytes {
		return files, "number of files"
	}
	return bytes, "room for bytes"
}

// RuneOutcome is what became of a rune at the boot.
type RuneOutcome struct {
	Rune    string `json:"rune"`
	Outcome string `json:"outcome"` // a runes.Outcome
	Reason  string `json:"reason,omitempty"`
}

// RuneResult is that with what the rune is for, and the paths of the files that were laid.
type RuneResult struct {
	RuneOutcome
	Description string   `json:"description,omitempty"`
	Files       []string `json:"files,omitempty"`
}

// ReadRunes reads a RunesBootFile.
func ReadRunes(path string) (list []RuneResult, err error) {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read what became of the runes: %w", err)
	}
	return list, nil
}

// PeerState says how a connection is.
type PeerState string

// The states of a connection.
const (
	Connected PeerState = "connected"
	Stalled   PeerState = "stalled" // requests are not answered
	Silent    PeerState = "silent"  // nothing at all was heard for a while
)

// Peer is another node as the block daemon sees it.
type Peer struct {
	Address    netip.AddrPort `json:"address"`
	State      PeerState      `json:"state"`
	Origin     bool           `json:"origin"` // it is the first node
	Ours       bool           `json:"ours"`   // it proved the key of a node
	Client     string         `json:"client"` // that it calls itself
	Have       int            `json:"have"`   // pieces
	Downloaded uint64         `json:"downloaded_bytes"`
	Uploaded   uint64         `json:"uploaded_bytes"`
	// Proof says whether its copies count; "" for who is not asked.
	Proof copies.Standing `json:"proof,omitempty"`
}

// Proofs counts the challenges that a node asked and answered, and the bytes of
// pieces that it hashed for both.
type Proofs struct {
	Asked    uint64 `json:"asked"`
	Answered uint64 `json:"answered"`
	Bytes    uint64 `json:"bytes"`
}

// ProofFailure is a peer that did not prove the copies that it claims: they do
// not count.
type ProofFailure struct {
	Peer    string        `json:"peer"`    // its address, or its ID when it is gone
	Machine string        `json:"machine"` // that it is counted by
	Reason  copies.Reason `json:"reason"`
	Piece   int           `json:"piece"`   // that it was asked about
	Seconds float64       `json:"seconds"` // ago
}

// Stranger is somebody whose gossip is not believed.
type Stranger struct {
	Address netip.Addr `json:"address"` // that it says is its own
	Name    string     `json:"name"`    // that it gives itself, "" for none
	Reason  string     `json:"reason"`  // for people
}

// MemberState says whether a member is there.
type MemberState string

// The states of a member.
const (
	Alive MemberState = "alive"
	Dead  MemberState = "dead" // does not answer
	Left  MemberState = "left" // said goodbye, or was switched off
)

// NameState says whether a member's hostname, MAC and address are its own: see
// docs/trust.md.
type NameState string

// The states of a member's names.
const (
	Owned       NameState = ""            // they are
	Unconfirmed NameState = "unconfirmed" // who had one of them is away, not for long enough
	Disputed    NameState = "disputed"    // another member has one of them
)

// Member is a machine of the cluster.
type Member struct {
	// ID follows from the key with which it signs what it says.
	ID       identity.ID `json:"id"`
	Hostname string      `json:"hostname"`
	// Name is what the operator calls it; "" when the operator said nothing.
	Name    string     `json:"name,omitempty"`
	MAC     ether.MAC  `json:"mac"`
	Address netip.Addr `json:"address"`
	// Reservation is the address that the operator reserved for it.
	Reservation netip.Addr `json:"reservation,omitzero"`
	First       bool       `json:"first"`
	// HTTPPort is where it serves boot files; 0 for a volume on any machine, which
	// serves none and is no boot host.
	HTTPPort uint16 `json:"http_port,omitempty"`
	// SwarmPort is where it exchanges pieces of the image that it runs.
	SwarmPort uint16            `json:"swarm_port,omitempty"`
	State     MemberState       `json:"state"`
	NameState NameState         `json:"name_state,omitempty"`
	Image     manifest.Infohash `json:"image"`
	// Network is the name of the network that it is on, "" for none yet.
	Network string `json:"network,omitempty"`
	// HostKey is its SSH host key as the member published it, "" for none.
	HostKey string `json:"host_key,omitempty"`
	// Live is the beginning of the digest of the live layer that it has, "" for none.
	Live string `json:"live,omitempty"`
	// Keeps is the beginning of the infohash of the image that it keeps beside the one that
	// it runs, "" for none.
	Keeps string `json:"keeps,omitempty"`
	// Memory is in bytes. It is 0, as CPUs is, for a volume on any machine.
	Memory   uint64   `json:"memory_bytes,omitempty"`
	CPUs     int      `json:"cpus,omitempty"`
	Features []string `json:"features,omitempty"` // see roles.Features
	Labels   []string `json:"labels,omitempty"`   // that the operator gave it
	// TakesRoles says that something runs on it that carries out roles, and Roles are
	// those that it holds, as it says.
	TakesRoles bool         `json:"takes_roles,omitempty"`
	Roles      []roles.Name `json:"roles,omitempty"`
}

// Group are machines on the link that run another image.
type Group struct {
	Image    manifest.Infohash `json:"image"`
	Machines int               `json:"machines"`
	Medium   netip.Addr        `json:"medium,omitzero"` // the machine with the medium, if there is one
}
