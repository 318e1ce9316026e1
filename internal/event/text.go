package event

import (
	"fmt"
	"strings"
)

// String says for people whether the first node may go, and why.
func (i Independence) String() string {
	doubt := ""
	if i.Unproved > 0 {
		doubt = "; " + count(i.Unproved, "node has not proved what it claims", "nodes have not proved what they claim")
	}
	switch {
	case i.Independent:
		return fmt.Sprintf("all %d pieces are kept by nodes other than the first (%s, at least %s of each)",
			i.Pieces, count(i.Nodes, "node", "nodes"), count(i.Replicas, "copy", "copies"))
	case i.Short:
		unit, name := 1e9, "GB"
		if i.Needed < 1e9 {
			unit, name = 1e6, "MB"
		}
		return fmt.Sprintf("image needs %.1f %s, nodes offer %.1f: the first node must stay", float64(i.Needed)/unit, name, float64(i.Offered)/unit)
	case i.Nodes == 0:
		return "no other node keeps pieces yet" + doubt
	}
	return fmt.Sprintf("%d of %d pieces are not yet kept by any node besides the first", i.Missing, i.Pieces) + doubt
}

// String says for people why the piece is not here.
func (w Waiting) String() string {
	known := count(w.Known, "peer known", "peers known")
	silence := fmt.Sprintf(", no answer for %.0f s", w.Silent)
	switch w.Reason {
	case NoPeer:
		return "no peer is known"
	case NeverAnswered:
		return known + ", none has answered yet"
	case NoAnswer:
		return known + silence
	case Requested:
		if w.Silent <= notable {
			silence = ""
		}
		return known + ", asked " + strings.Join(w.Asked, " and ") + silence
	case NoHolder:
		return known + ", " + count(w.Answering, "answers", "answer") + ", none has it"
	}
	return known + ", " + count(w.Holders, "has it", "have it") + ", none takes a request"
}

// notable is the silence of those that are asked that is shown, in seconds.
const notable = 2

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// OutOfReach says how many of an image's pieces no machine in reach has, and whether the
// first node answers (origin); "" when there are none.
func OutOfReach(missing, pieces int, origin bool) string {
	if missing == 0 {
		return ""
	}
	also := ""
	if !origin {
		also = ", and the first node does not answer"
	}
	return fmt.Sprintf("%d of %d pieces are on no machine in reach%s; all others can be read, reads of these wait", missing, pieces, also)
}
