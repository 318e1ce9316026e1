package boothost

import (
	"viver.lan/internal/dhcp"
	"viver.lan/internal/manifest"
)

// Status is a snapshot of the boot host.
type Status struct {
	Interface     string            `json:"interface"`
	Address       string            `json:"address"`
	Mode          dhcp.Mode         `json:"mode"`
	Image         string            `json:"image"`
	Distribution  string            `json:"distribution"`
	KernelRelease string            `json:"kernel_release"`
	Infohash      manifest.Infohash `json:"infohash"`
	Machines      []Machine         `json:"machines"`
}

// Status returns what the host serves and the machines that it has seen.
func (h *Host) Status() Status {
	m := h.catalog.image
	return Status{
		Interface:     h.cfg.Interface.Name,
		Address:       h.cfg.Address.String(),
		Mode:          h.mode(),
		Image:         m.Name,
		Distribution:  m.Distribution,
		KernelRelease: m.KernelRelease,
		Infohash:      m.Infohash,
		Machines:      h.machines.list(),
	}
}

func (h *Host) status() any {
	if h.cfg.Status != nil {
		return h.cfg.Status()
	}
	return h.Status()
}

// pageView is what the status page shows.
type pageView struct {
	Status
	Warning string
	Node    string // the node's own status as JSON
}
