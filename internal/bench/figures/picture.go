package figures

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// Where things are in the picture, in SVG units.
const (
	picWidth, picHeight = 760, 460
	picLeft, picRight   = 64, 600 // of the plot; names of the lines follow
	picTop, picBottom   = 56, 396
	picMaxN             = 32
)

// curve is a line of the picture. The colours are told apart by colour-blind
// people too.
type curve struct {
	system, label, colour string
	width                 float64
	dashes                string // so that what lies below can be seen
}

func curves() []curve {
	return []curve{
		{"vfield", "V-FIELD", "#d55e00", 3.5, ""},
		{"libtorrent", "libtorrent", "#009e73", 2, ""},
		{"anacrolix", "anacrolix/torrent", "#cc79a7", 2, ""},
		{"http", "HTTP", "#56b4e9", 2, ""},
		{"nbd", "NBD", "#0072b2", 2, "7 7"},
	}
}

func picX(n int) float64 {
	return picLeft + math.Log2(float64(n))/math.Log2(picMaxN)*(picRight-picLeft)
}

func picY(share float64) float64 {
	return picBottom - min(max(share, 0), 1.05)*(picBottom-picTop)
}

// Picture draws mean speed per node over the number of nodes, in per cent of
// NBD's speed with one node; a thin bar reaches down to V-FIELD's slowest node.
func Picture(rows []Row) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13" fill="#222">`+"\n",
		picWidth, picHeight, picWidth, picHeight)
	b.WriteString(`<title>Mean speed per node over the number of nodes that read the same file at the same moment</title>` + "\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", picWidth, picHeight)
	fmt.Fprintf(&b, `<text x="%d" y="26" font-size="16" font-weight="bold">Every node reads the whole file at the same moment</text>`+"\n", picLeft)
	fmt.Fprintf(&b, `<text x="%d" y="44" fill="#555">mean speed per node, in %% of NBD with a single node</text>`+"\n", picLeft)
	for p := 0; p <= 100; p += 20 {
		y := picY(float64(p) / 100)
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%d %%</text>`+"\n",
			picLeft, y, picRight, y, picLeft-8, y+4, p)
	}
	for n := 1; n <= picMaxN; n *= 2 {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#999"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			picX(n), picBottom, picX(n), picBottom+5, picX(n), picBottom+21, n)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#555">nodes</text>`+"\n", (picLeft+picRight)/2, picBottom+42)
	var taken []float64 // heights of names, which must not lie on each other
	for _, c := range curves() {
		drawCurve(&b, c, points(rows, c.system), &taken)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// points are the rows of a system that belong into the picture, by N.
func points(rows []Row, system string) (out []Row) {
	for _, r := range rows {
		if r.System != system || r.Start != Simultaneous || r.MeanVsNBD1.Missing() || r.LinkMbit == 0 {
			continue
		}
		if !slices.ContainsFunc(out, func(o Row) bool { return o.N == r.N }) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Row) int { return a.N - b.N })
	return out
}

func drawCurve(b *bytes.Buffer, c curve, rows []Row, taken *[]float64) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, `<g stroke="%s" fill="%s">`+"\n"+`<polyline fill="none" stroke-width="%.1f" stroke-dasharray="%s" points="`, c.colour, c.colour, c.width, c.dashes)
	for _, r := range rows {
		fmt.Fprintf(b, "%.1f,%.1f ", picX(r.N), picY(float64(r.MeanVsNBD1)))
	}
	b.WriteString("\"/>\n")
	for _, r := range rows {
		x, y := picX(r.N), picY(float64(r.MeanVsNBD1))
		if c.system == "vfield" {
			fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke-width="1.5"/>`, x, y, x, picY(float64(r.WorstVsNBD1)))
		}
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" stroke="none"><title>%s, N=%d: %s</title></circle>`+"\n", x, y, c.label, r.N, percent(r.MeanVsNBD1))
	}
	last := rows[len(rows)-1]
	x, y := picX(last.N)+10, picY(float64(last.MeanVsNBD1))+4
	const height = 16
	for slices.ContainsFunc(*taken, func(t float64) bool { return math.Abs(t-y) < height-1 }) {
		y -= height // upwards: the lowest is drawn last, at the axis
	}
	*taken = append(*taken, y)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" stroke="none">%s %s</text>`+"\n</g>\n", x, y, c.label, percent(last.MeanVsNBD1))
}
