package bootbench

import (
	"cmp"
	"slices"

	"viver.lan/internal/bench/figures"
)

// Row is one line of the result: one system in one situation. Its JSON is the
// format of boot.json. The figures are all those of the run with the median
// time to login; what a row does not have is null.
type Row struct {
	Name      string `json:"name"`
	System    string `json:"system"`
	Image     string `json:"image"`
	Firmware  string `json:"firmware"` // "direct" where QEMU loads the kernel itself
	CPUs      int    `json:"cpus"`
	MemoryMiB int    `json:"memory_mib"`
	Machines  int    `json:"machines"` // that are timed
	Runs      int    `json:"runs"`

	OnToKernel   figures.Value `json:"on_to_kernel_s"`
	KernelToInit figures.Value `json:"kernel_to_init_s"` // to the init of the booted system
	InitToLogin  figures.Value `json:"init_to_login_s"`
	OnToLogin    figures.Value `json:"on_to_login_s"`
	Fastest      figures.Value `json:"on_to_login_min_s"`
	Slowest      figures.Value `json:"on_to_login_max_s"`

	// What came over the machine's cable until the login, with all headers: of it
	// by TFTP and HTTP to boot, and by the protocol of the root.
	NetBytes      figures.Value `json:"net_bytes"`
	KernelBytes   figures.Value `json:"net_bytes_until_kernel"`
	BootFileBytes figures.Value `json:"boot_file_bytes"`
	RootBytes     figures.Value `json:"root_bytes"`
	// What the kernel read of the root's block device until the login.
	RootReads     figures.Value `json:"root_reads"`
	RootReadBytes figures.Value `json:"root_read_bytes"`

	CPU         figures.Value            `json:"cpu_s"` // of all processors of the machine, until the login
	CPUOf       map[string]figures.Value `json:"cpu_s_by_process"`
	VFieldShare figures.Value            `json:"vfield_cpu_share"`
	MemoryUsed  figures.Value            `json:"memory_used_mib"`

	// Of a room.
	FirstLogin     figures.Value `json:"first_login_s"`
	LastLogin      figures.Value `json:"last_login_s"`
	FirstNodeBytes figures.Value `json:"first_node_sent_bytes"` // until the last login
	ImageBytes     figures.Value `json:"image_bytes"`
	Independent    figures.Value `json:"independent_after_last_login_s"`

	// FirstNodeCPU is what the first node's machine used of the host's processors, from
	// power-on to login, in seconds: the machine that boots has those left.
	FirstNodeCPU figures.Value `json:"first_node_host_cpu_s"`
	// OthersBusy is the share of the host's processors that was used by programs
	// that are no part of the measurement.
	OthersBusy figures.Value `json:"others_busy"`
}

// newRow has no figure yet.
func newRow(s spec) Row {
	r := Row{Name: s.name, System: s.system, Image: s.image, Firmware: string(s.firmware), CPUs: s.cpus, MemoryMiB: memory, Machines: s.n, Runs: s.runs}
	if s.system == Disk {
		r.Firmware = "direct"
	}
	if s.image == "" {
		r.Image = "debian"
	}
	if s.image == "tiny" {
		r.MemoryMiB = tinyMemory
	}
	for _, f := range []*figures.Value{&r.OnToKernel, &r.KernelToInit, &r.InitToLogin, &r.OnToLogin, &r.Fastest, &r.Slowest,
		&r.NetBytes, &r.KernelBytes, &r.BootFileBytes, &r.RootBytes, &r.RootReads, &r.RootReadBytes, &r.CPU, &r.VFieldShare, &r.MemoryUsed,
		&r.FirstLogin, &r.LastLogin, &r.FirstNodeBytes, &r.ImageBytes, &r.Independent, &r.FirstNodeCPU, &r.OthersBusy} {
		*f = figures.None()
	}
	return r
}

// KernelToLogin is a sum, in seconds.
func (r Row) KernelToLogin() figures.Value { return r.KernelToInit + r.InitToLogin }

// time is what the runs of a row are ordered by.
func (r Row) time() figures.Value {
	if r.System == Room {
		return r.LastLogin
	}
	return r.OnToLogin
}

// median returns the run in the middle, and of all runs the fastest and the
// slowest time. There is one run at least.
func median(runs []Row) Row {
	slices.SortFunc(runs, func(a, b Row) int { return cmp.Compare(a.time(), b.time()) })
	m := runs[(len(runs)-1)/2]
	m.Runs = len(runs)
	if m.System != Room {
		m.Fastest, m.Slowest = runs[0].time(), runs[len(runs)-1].time()
	}
	return m
}

// inOrder sorts rows as the plan has them.
func inOrder(rows []Row) []Row {
	order := names(plan())
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(slices.Index(order, a.Name), slices.Index(order, b.Name)) })
	return rows
}

// find returns the row of that name.
func find(rows []Row, name string) (Row, bool) {
	i := slices.IndexFunc(rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		return Row{}, false
	}
	return rows[i], true
}
