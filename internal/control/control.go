// Package control is how the programs of one node talk to each other.
//
// uinit leaves what it found out in a Boot file; the block daemon answers on a
// Unix socket with HTTP and JSON: whoever follows it gets its whole Status, at once
// and whenever that has changed. The package holds the schema of that conversation
// and both of its ends, and knows nothing of what the daemons do.
// The invariant: everything here is local to the machine; nothing on the
// network can reach it.
package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"viver.lan/internal/config"
	"viver.lan/internal/durable"
	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
)

// Names under RunDir, which lives on the tmpfs that moves into the root. The image's
// description is there too (package description).
const (
	RunDir   = "/run/viver"
	Socket   = RunDir + "/vfield.sock"
	BootFile = RunDir + "/boot.json"
	// StagesFile is how long each stage of the boot took, for people.
	StagesFile   = RunDir + "/stages.json"
	SettingsFile = RunDir + "/settings.toml"
	// BuiltinRunes is where the initramfs carries overlay/runes; RunesFile has those of
	// the medium.
	BuiltinRunes = "/etc/viver/runes"
	RunesFile    = RunDir + "/runes.tar"
	// LiveDir has the live layers of this node, by digest (package livestore).
	LiveDir = RunDir + "/live"
	// PublicationDir has the publications of this node's network, as LiveDir has its live
	// layers; SecondDir the description of the image that the node keeps beside its own.
	PublicationDir = RunDir + "/publications"
	SecondDir      = RunDir + "/second"
	// RunesBootFile is what became of each rune at the boot: a list of RuneResult.
	RunesBootFile = RunDir + "/runes-boot.json"
	// RunnerWantedFile is there when a rune asks for anything of the running system: @vrune
	// is started then.
	RunnerWantedFile = RunDir + "/runner.wanted"
	// HostKeyFile is the public half of this machine's SSH host key, as uinit
	// found it in the root; KnownHosts is the block daemon's list of the keys
	// that the members published.
	HostKeyFile = RunDir + "/ssh_host_key.pub"
	KnownHosts  = RunDir + "/ssh_known_hosts"
	// IdentityFile is this machine's key, which root alone reads: the agent must
	// not speak as the machine. SequenceFile says which of its words are newer.
	IdentityFile = RunDir + "/identity.key"
	SequenceFile = RunDir + "/identity.sequence"
	// OwnerFile is the public key that overrides are signed with, on a server: a node has it
	// in its initramfs.
	OwnerFile = RunDir + "/owner.pub"
	// DeviceFile holds the path of the root disk's device, once the block daemon has
	// attached it. The boot waits for the file: a question over the socket costs a
	// slow machine more time.
	DeviceFile = RunDir + "/device"
	// RecordFile is what this machine read of its root disk until it was up
	// (package bootrecord); it is there from then on.
	RecordFile = RunDir + "/boot.record"
	// RolesFile has the roles that this machine holds, for a block daemon that is started
	// again.
	RolesFile = RunDir + "/roles.json"
	// RunesStateFile is the runner's: what it made of the runes, their roles among it.
	RunesStateFile = RunDir + "/runes.json"
	// NetworkNameFile holds the name of the network that this machine is on.
	NetworkNameFile = RunDir + "/network"
	// BootNetworkFile is this machine's bootnet.Network: uinit's, then the block daemon's.
	BootNetworkFile = RunDir + "/network.json"
	// PortsFile holds the Ports that the services of runes listen on, when there are any.
	PortsFile = RunDir + "/ports.json"
	// SavedDir is where the saved-data disk is mounted, if there is one, in the
	// mount namespace of process 1.
	SavedDir = RunDir + "/saved"
)

// ReadySocket is where an init that knows sd_notify(3) tells the block daemon that it
// has started all it was to start: a name in the kernel, so that it is the same in each
// mount namespace.
const ReadySocket = "@viver-ready"

// SegmentSocket is where the agent lends the block daemon connections (package segment);
// a name in the kernel, as above.
const SegmentSocket = "@viver-segments"

// AgentID is the user and group of the agent, which may use Socket. It is one of
// those that no distribution gives away (https://systemd.io/UIDS-GIDS).
const AgentID = 65521

// PieceDir is where the block daemon keeps the pieces of the image: a tmpfs in
// the mount namespace of the initramfs.
const PieceDir = "/pieces"

// SecondPieceDir is where it keeps those of its second image.
const SecondPieceDir = "/pieces-second"

// Ports that every node listens on, on its boot link only, beside that of gossip
// (cluster.DefaultPort).
const (
	SwarmPort = 6881
	// SecondSwarmPort is where a node exchanges pieces of its second image, if it has one.
	SecondSwarmPort = 6882
	// HTTPPort is the boot host's on a machine with a medium; on any other it is
	// StandByPort, because what was booted there may want port 80 for itself.
	HTTPPort    = 80
	StandByPort = 6880
)

// Boot is what uinit found out before it started the daemons, as far as it stays: what
// changes, such as the address, is in BootNetworkFile. Only uinit writes it.
type Boot struct {
	NodePrefix string    `json:"node_prefix"`
	Hostname   string    `json:"hostname"`
	MAC        ether.MAC `json:"mac"`
	Interface  string    `json:"interface"`
	Firmware   string    `json:"firmware"` // "bios" or "uefi"
	BootedBy   string    `json:"booted_by"`
	// First is true on the node that holds the medium.
	First bool `json:"first"`
	// Server is the TCP port on which an installed machine serves boot files as the first
	// node (package bootserver, which writes this file there); zero on a machine that booted.
	Server uint16 `json:"server,omitempty"`
	// StateDir is where a server keeps what shall outlive it, as a node does on its
	// saved-data disk.
	StateDir string `json:"state_dir,omitempty"`
	// Host is the boot host this node came from, with its HTTP port, and Origin
	// the machine with the medium, as that host knew it. Both are unset on the
	// first node, Origin also when no such machine was there any more.
	Host   netip.AddrPort `json:"host,omitzero"`
	Origin netip.Addr     `json:"origin,omitzero"`
	// Medium is the mounted image directory on the medium, "" elsewhere.
	Medium string `json:"medium,omitempty"`
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
	// What runes may ask of a machine that is to hold a role: the bytes of memory that
	// its kernel has, its processors, and roles.Features. SavedData among these is a disk
	// that was found; whether it could be used shows later.
	MachineMemory int64    `json:"machine_memory"`
	CPUs          int      `json:"cpus"`
	Features      []string `json:"features,omitempty"`
	// Lacking says which network cards and disk controllers do not run, for people.
	Lacking []string `json:"lacking,omitempty"`
	// Cache is a file on a cache disk for the pieces, "" to keep them in memory;
	// CacheBudget is how many bytes it may hold.
	Cache       string `json:"cache,omitempty"`
	CacheBudget int64  `json:"cache_budget,omitempty"`
}

// ServePort is the TCP port on which this machine serves boot files.
func (b *Boot) ServePort() uint16 {
	switch {
	case b.Server != 0:
		return b.Server
	case b.First:
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

// WriteState stores a Boot or another small file in RunDir.
func WriteState(path string, state any) error {
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.WriteFile(path, append(data, '\n'), 0o644)
}

// ReadBoot reads what uinit found out.
func ReadBoot(path string) (*Boot, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what uinit found out: %w", err)
	}
	b := new(Boot)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("read what uinit found out: %s: %w", path, err)
	}
	return b, nil
}
