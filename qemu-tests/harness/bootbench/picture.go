package bootbench

import (
	"bytes"
	"fmt"
	"html"

	"viver.lan/internal/bench/figures"
)

// Where things are in the picture, in SVG units.
const (
	picWidth         = 760
	picLeft, picEdge = 190, 700 // of the bars; names are before them
	picTop           = 76
	barHeight        = 22
	barStep          = 30
	groupGap         = 14
)

// part is a part of each bar.
type part struct {
	label, colour string
	of            func(Row) figures.Value
}

func parts() []part {
	return []part{
		{"power-on to kernel", "#999999", func(r Row) figures.Value { return r.OnToKernel }},
		{"kernel to init", "#e69f00", func(r Row) figures.Value { return r.KernelToInit }},
		{"init to login", "#0072b2", func(r Row) figures.Value { return r.InitToLogin }},
	}
}

func label(r Row) string {
	name := map[string]string{Disk: "local disk", NBD: "NBD root", Live: "live-boot", VIVER: "VIVER"}[r.System]
	switch {
	case r.Firmware == "uefi":
		name += ", UEFI"
	case r.Firmware == "uefi-secure":
		name += ", Secure Boot"
	}
	return fmt.Sprintf("%s, %d CPU", name, r.CPUs)
}

// picture draws a bar for each boot, of the three parts of its time.
func picture(rows []Row) []byte {
	var boots []Row
	longest := figures.Value(1)
	for _, r := range rows {
		if r.System != Room {
			boots = append(boots, r)
			longest = max(longest, r.OnToLogin)
		}
	}
	y := picTop
	var bars bytes.Buffer
	for i, r := range boots {
		if i > 0 && (boots[i-1].CPUs != r.CPUs || boots[i-1].Firmware == "bios" && r.Firmware == "uefi") {
			y += groupGap
		}
		drawBar(&bars, r, y, float64(picEdge-picLeft)/float64(longest))
		y += barStep
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13" fill="#222">`+"\n", picWidth, y+16, picWidth, y+16)
	b.WriteString("<title>Seconds from power-on to login</title>\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", picWidth, y+16)
	b.WriteString(`<text x="20" y="26" font-size="16" font-weight="bold">Seconds from power-on to login, the same Debian</text>` + "\n")
	x := 20
	for _, p := range parts() {
		fmt.Fprintf(&b, `<rect x="%d" y="42" width="14" height="14" fill="%s"/><text x="%d" y="54">%s</text>`+"\n", x, p.colour, x+20, p.label)
		x += 170
	}
	b.Write(bars.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func drawBar(b *bytes.Buffer, r Row, y int, scale float64) {
	weight := "normal"
	if r.System == VIVER {
		weight = "bold"
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" font-weight="%s">%s</text>`, picLeft-10, y+16, weight, html.EscapeString(label(r)))
	x := float64(picLeft)
	for _, p := range parts() {
		if p.of(r).Missing() {
			continue
		}
		w := float64(p.of(r)) * scale
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s: %.1f s</title></rect>`, x, y, w, barHeight, p.colour, p.label, float64(p.of(r)))
		x += w
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", x+6, y+16, number(r.OnToLogin, 1, "%.1f"))
}
