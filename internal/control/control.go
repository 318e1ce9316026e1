// Package control is how the programs of one node talk to each other.
//
// uinit leaves what it found out in a Boot file; the block daemon answers on a
// Unix socket with HTTP and JSON. The package holds the words of that
// conversation and both of its ends, and knows nothing of what the daemons do.
// The invariant: everything here is local to the machine; nothing on the
// network can reach it.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"viver.lan/internal/config"
	"viver.lan/internal/durable"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
	"viver.lan/internal/hostname"
	"viver.lan/internal/identity"
	"viver.lan/internal/manifest"
)

// Names under RunDir, which lives on the tmpfs that moves into the root.
const (
	RunDir   = "/run/viver"
	Socket   = RunDir + "/vfield.sock"
	BootFile = RunDir + "/boot.json"
	// MoveFile is what has changed since BootFile was written, by the block daemon.
	MoveFile = RunDir + "/moved.json"
	// StagesFile is how long each stage of the boot took, for people.
	StagesFile   = RunDir + "/stages.json"
	ManifestFile = RunDir + "/" + manifest.File
	// SignatureFile is the owner's signature of ManifestFile.
	SignatureFile = RunDir + "/" + manifest.Signature
	MetainfoFile  = RunDir + "/" + manifest.Metainfo
	SettingsFile  = RunDir + "/settings.toml"
	RunesFile     = RunDir + "/runes.tar"
	// HostKeyFile is the public half of this machine's SSH host key, as uinit
	// found it in the root; KnownHosts is the block daemon's list of the keys
	// that the members published.
	HostKeyFile = RunDir + "/ssh_host_key.pub"
	KnownHosts  = RunDir + "/ssh_known_hosts"
	// IdentityFile is this machine's key, which root alone reads: the agent must
	// not speak as the machine. SequenceFile says which of its words are newer.
	IdentityFile = RunDir + "/identity.key"
	SequenceFile = RunDir + "/identity.sequence"
	// DeviceFile holds the path of the root disk's device, once the block daemon has
	// attached it. The boot waits for the file: a question over the socket costs a
	// slow machine more time.
	DeviceFile = RunDir + "/device"
	// NetworkFile holds the name of the network that this machine is on.
	NetworkFile = RunDir + "/network"
	// SavedDir is where the saved-data disk is mounted, if there is one, in the
	// mount namespace of process 1.
	SavedDir = RunDir + "/saved"
)

// AgentID is the user and group of the agent, which may use Socket. It is one of
// those that no distribution gives away (https://systemd.io/UIDS-GIDS).
const AgentID = 65521

// PieceDir is where the block daemon keeps the pieces of the image: a tmpfs in
// the mount namespace of the initramfs.
const PieceDir = "/pieces"

// Ports that every node listens on, on its boot link only.
const (
	SwarmPort  = 6881
	GossipPort = 7946
	// HTTPPort is the boot host's on a machine with a medium; on any other it is
	// StandByPort, because what was booted there may want port 80 for itself.
	HTTPPort    = 80
	StandByPort = 6880
)

// Boot is what uinit found out before it started the daemons. It alone writes
// it; what changes later is a Move.
type Boot struct {
	NodePrefix string     `json:"node_prefix"`
	Hostname   string     `json:"hostname"`
	MAC        ether.MAC  `json:"mac"`
	Interface  string     `json:"interface"`
	Index      int        `json:"index"` // of the interface; a name may change
	Address    netip.Addr `json:"address"`
	Firmware   string     `json:"firmware"` // "bios" or "uefi"
	BootedBy   string     `json:"booted_by"`
	// First is true on the node that holds the medium.
	First bool `json:"first"`
	// Host is the boot host this node came from, with its HTTP port, and Origin
	// the machine with the medium, as that host knew it. Both are unset on the
	// first node, Origin also when no such machine was there any more.
	Host   netip.AddrPort `json:"host,omitzero"`
	Origin netip.Addr     `json:"origin,omitzero"`
	// Medium is the mounted image directory on the medium, "" elsewhere.
	Medium string `json:"medium,omitempty"`
	// ForeignDHCP names the DHCP servers that were here before us.
	ForeignDHCP []string `json:"foreign_dhcp,omitempty"`
	// Pool is the range to give out, KernelArguments what is added to the
	// command line of network-booted nodes.
	Pool netip.Prefix `json:"pool"`
	// DHCP is what this network leaves to its boot hosts: a dhcp.Mode.
	DHCP            string           `json:"dhcp"`
	KernelArguments string           `json:"kernel_arguments"`
	Settings        []config.Setting `json:"settings"`
	// SavedNetwork is the network's name as the saved-data disk has it, "" for
	// none.
	SavedNetwork string `json:"saved_network,omitempty"`
	// FirewallOpen says that VIVER's ports are kept open to the boot network.
	FirewallOpen bool `json:"firewall_open"`
	// Memory is what pieces of the image may take, in bytes.
	Memory int64 `json:"memory"`
	// Cache is a file on a cache disk for the pieces, "" to keep them in memory;
	// CacheBudget is how many bytes it may hold.
	Cache       string `json:"cache,omitempty"`
	CacheBudget int64  `json:"cache_budget,omitempty"`
}

// Move is what has changed of a Boot while the machine runs. The block daemon
// alone writes it.
type Move struct {
	Address     netip.Addr `json:"address"`
	DHCP        string     `json:"dhcp"`
	ForeignDHCP []string   `json:"foreign_dhcp,omitempty"`
}

// ServePort is the TCP port on which this machine serves boot files.
func (b *Boot) ServePort() uint16 {
	if b.First {
		return HTTPPort
	}
	return StandByPort
}

// NodeName returns the hostname of the machine with this MAC address: the
// prefix from the settings and the whole address, so it is the same at every
// boot and on whichever machine it is worked out. The address's end alone would
// be shorter, but two makers number their cards alike.
func (b *Boot) NodeName(mac ether.MAC) string {
	return hostname.Default(b.NodePrefix, mac.String())
}

// WriteState stores a Boot, a Move or another small file in RunDir.
func WriteState(path string, state any) error {
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.WriteFile(path, append(data, '\n'), 0o644)
}

// ReadBoot reads what uinit found out, and on top of it the Move at path moved,
// if there is one.
func ReadBoot(boot, moved string) (*Boot, error) {
	var b Boot
	if err := readState(boot, &b); err != nil {
		return nil, fmt.Errorf("read what uinit found out: %w", err)
	}
	m := Move{b.Address, b.DHCP, b.ForeignDHCP}
	if err := readState(moved, &m); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read what has changed since the boot: %w", err)
	}
	b.Address, b.DHCP, b.ForeignDHCP = m.Address, m.DHCP, m.ForeignDHCP
	return &b, nil
}

func readState(path string, state any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, state); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Peer is another node as the block daemon sees it.
type Peer struct {
	Address    string `json:"address"`
	Hostname   string `json:"hostname,omitempty"`
	Origin     bool   `json:"origin"`
	Ours       bool   `json:"ours"` // it proved the key of a node
	Have       int    `json:"have"` // pieces
	Downloaded uint64 `json:"downloaded_bytes"`
	Uploaded   uint64 `json:"uploaded_bytes"`
	// Proof says whether its copies count: "proved", "unproved" or "failed"; ""
	// for who is not asked.
	Proof string `json:"proof,omitempty"`
}

// Stranger is somebody who takes part and has not proved who it is.
type Stranger struct {
	Address string `json:"address"`
	Name    string `json:"name"` // that it gives itself, "" for none
	Why     string `json:"why"`  // it is one
}

// Member is a machine of the cluster.
type Member struct {
	// ID follows from the key with which it signs what it says.
	ID       identity.ID `json:"id"`
	Hostname string      `json:"hostname"`
	// Name is what the operator calls it; "" when the operator said nothing.
	Name    string    `json:"name,omitempty"`
	MAC     ether.MAC `json:"mac"`
	Address string    `json:"address"`
	// Reservation is the address that the operator reserved for it; "" for none.
	Reservation string `json:"reservation,omitempty"`
	First       bool   `json:"first"`
	State       string `json:"state"`
	Image       string `json:"image"`
	// Standing is "" when hostname, MAC and address are its own, else
	// "unconfirmed" or "disputed": see docs/trust.md.
	Standing string `json:"standing,omitempty"`
	// Network is the name of the network that it is on, "" for none yet.
	Network string `json:"network,omitempty"`
	// HostKey is its SSH host key as the member published it, "" for none.
	HostKey string `json:"host_key,omitempty"`
}

// CheckState is how a check went.
type CheckState string

// The states of a check.
const (
	CheckOK      CheckState = "ok"
	CheckOff     CheckState = "off" // the settings say so
	CheckWarning CheckState = "warning"
	CheckFailed  CheckState = "failed"
)

// Check is one thing that a node knows to be right or wrong with itself.
type Check struct {
	Name  string     `json:"name"`
	State CheckState `json:"state"`
	Text  string     `json:"text"` // for people
}

// Written is how full the place is that holds the files written to the root:
// memory or a saved-data disk.
type Written struct {
	Size uint64 `json:"size"` // bytes
	Free uint64 `json:"free"` // bytes
	// Files is how many files fit, and FilesFree how many more do. Both are 0
	// where there is no limit.
	Files     uint64 `json:"files,omitempty"`
	FilesFree uint64 `json:"files_free,omitempty"`
}

// scarce is the share, one in so many, below which room is short.
const scarce = 20

// Short reports whether little room is left, for bytes or for files.
func (w *Written) Short() bool {
	return w.Free < w.Size/scarce || w.FilesFree < w.Files/scarce
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
	Peer    string  `json:"peer"`
	Machine string  `json:"machine"`
	Why     string  `json:"why"`
	Seconds float64 `json:"seconds"` // ago
}

// Status is what the block daemon says of itself.
type Status struct {
	ID           identity.ID        `json:"id"`
	Network      string             `json:"network,omitempty"` // its name, "" when it has none yet
	Hostname     string             `json:"hostname"`
	MAC          ether.MAC          `json:"mac"`
	Address      string             `json:"address"`
	First        bool               `json:"first"`
	Image        string             `json:"image"`
	Infohash     manifest.Infohash  `json:"infohash"`
	Device       string             `json:"device"` // "" until the root disk is attached
	Transfer     event.Transfer     `json:"transfer"`
	Independence event.Independence `json:"independence"`
	Pinned       int                `json:"pinned"`         // pieces this node keeps for the network
	Replicas     int                `json:"replicas"`       // nodes other than the first that keep the rarest piece
	Budget       int64              `json:"budget"`         // bytes that pieces may take,
	Used         int64              `json:"used"`           // and do
	Note         string             `json:"note,omitempty"` // what is wrong with the piece store
	// Written is nil until the distribution's root is there.
	Written    *Written        `json:"written,omitempty"`
	Waiting    []event.Waiting `json:"waiting,omitempty"`
	OutOfReach int             `json:"out_of_reach"`      // pieces that no live machine in reach has,
	Missing    string          `json:"missing,omitempty"` // and the same in words
	Panics     uint64          `json:"panics,omitempty"`  // faults that ended one connection or packet each; the log has them
	Peers      []Peer          `json:"peers"`
	// Proofs counts what proofs of copies cost this node.
	Proofs Proofs `json:"proofs"`
	// ProofFailures lists the peers that did not prove the copies they claim.
	ProofFailures []ProofFailure `json:"proof_failures,omitempty"`
	Members       []Member       `json:"members"`
	// Strangers take part and have not proved who they are.
	Strangers []Stranger `json:"strangers,omitempty"`
	Groups    []Group    `json:"groups,omitempty"` // machines on the link with other images
	Served    string     `json:"served,omitempty"` // who boots the others, where several could
	Checks    []Check    `json:"checks,omitempty"`
}
