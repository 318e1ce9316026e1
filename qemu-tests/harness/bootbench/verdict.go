package bootbench

import (
	"fmt"
	"math"

	"viver.lan/internal/bench/figures"
)

// verdict holds rows against the aims, times as ratios within one run. What was
// not measured is left out.
func verdict(rows []Row) (out figures.Lines) {
	told := math.NaN()
	add := func(what string, v figures.Value, aim, land float64) {
		if !v.Missing() {
			out = append(out, figures.Line{What: what, Value: float64(v), AtMost: true, Aim: aim, Land: land})
		}
	}
	get := func(name string, figure func(Row) figures.Value) figures.Value {
		if r, ok := find(rows, name); ok {
			return figure(r)
		}
		return figures.None()
	}
	onToLogin := func(r Row) figures.Value { return r.OnToLogin }
	onToKernel := func(r Row) figures.Value { return r.OnToKernel }
	bounds := map[int][4]float64{1: {0.9, 1.05, 1.1, 1.25}, 2: {0.7, 0.95, 1.0, 1.25}}
	for _, cpus := range []int{1, 2} {
		b, cpu := bounds[cpus], fmt.Sprintf(", %d CPU", cpus)
		viver, disk, nbd := fmt.Sprintf("viver:%d", cpus), fmt.Sprintf("disk:%d", cpus), fmt.Sprintf("nbd:%d", cpus)
		add("kernel to login / local disk"+cpu, get(viver, Row.KernelToLogin)/get(disk, Row.KernelToLogin), b[0], b[1])
		add("power-on to login / local disk"+cpu, get(viver, onToLogin)/get(disk, onToLogin), b[2], b[3])
		add("power-on to login / NBD root"+cpu, get(viver, onToLogin)/get(nbd, onToLogin), 0.55, 0.7)
	}
	add("root fetched until login, MB", get("viver:1", func(r Row) figures.Value { return r.RootBytes / 1e6 }), 14, 20)
	add("boot files per machine, MB", get("viver:1", func(r Row) figures.Value { return r.BootFileBytes / 1e6 }), 14, 18)
	add("power-on to kernel, UEFI PXE, s", get("viver:uefi", onToKernel), 18, 24)
	add("power-on to kernel, Secure Boot PXE, s", get("viver:uefi-secure", onToKernel), 20, 26)
	add("power-on to kernel, BIOS, s", get("viver:1", onToKernel), 6, 7)
	add("@vfield's share of CPU until login", get("viver:1", func(r Row) figures.Value { return r.VFieldShare }), 0.08, 0.12)
	ratio := func(r Row) figures.Value { return r.LastLogin / r.FirstLogin }
	add("last / first login, room of 8 tiny", get("room:tiny", ratio), 1.2, told)
	add("last / first login, room of 4 Debian", get("room:debian", ratio), 1.2, told)
	add("independent after the last login, room of 4 Debian, s", get("room:debian", func(r Row) figures.Value { return r.Independent }), told, told)
	return out
}
