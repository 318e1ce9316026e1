package roles

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"viver.lan/internal/ether"
)

// Features are the things of a machine that a role may need, in the order of their
// bits in a node's facts: new ones come at the end.
const (
	SavedData = "saved-data" // a disk that keeps what is written
	Cache     = "cache"      // a disk for pieces of the image
	GPU       = "gpu"
	KVM       = "kvm"
	Homes     = "homes" // a disk for the homes of the whole network
	Clock     = "clock" // that was not before the image was made, when it booted
)

// Features returns all that there are.
func Features() []string { return []string{SavedData, Cache, GPU, KVM, Homes, Clock} }

// Need is a condition on the nodes that may hold a role. The zero Need is none.
type Need struct {
	kind   needKind
	amount uint64 // bytes of memory, or processors
	word   string // a feature or a label
	mac    ether.MAC
}

type needKind byte

const (
	noNeed needKind = iota
	needMemory
	needCPUs
	needFeature
	needLabel
	needMAC
)

// units of memory, the largest first.
var units = [...]struct {
	suffix string
	shift  uint
}{{"T", 40}, {"G", 30}, {"M", 20}}

// Bounds on what a need may ask for.
const (
	maxAmount = 4096 // of one unit of memory
	maxCPUs   = 65535
)

// ParseNeed reads one condition: "memory >= 8G", "cpus >= 4", "has saved-data",
// "label storage" or "mac 52:54:00:12:34:56".
func ParseNeed(s string) (Need, error) {
	n, err := parseNeed(strings.Fields(s))
	if err != nil {
		return Need{}, fmt.Errorf("need %.80q: %w", s, err)
	}
	return n, nil
}

func parseNeed(words []string) (n Need, err error) {
	switch {
	case len(words) == 3 && words[1] == ">=" && words[0] == "memory":
		n.kind = needMemory
		n.amount, err = parseMemory(words[2])
	case len(words) == 3 && words[1] == ">=" && words[0] == "cpus":
		n.kind = needCPUs
		n.amount, err = parseAmount(words[2], maxCPUs)
	case len(words) == 2 && words[0] == "has":
		n.kind, n.word = needFeature, words[1]
		err = CheckFeature(n.word)
	case len(words) == 2 && words[0] == "label":
		n.kind, n.word = needLabel, words[1]
		err = CheckWord(n.word)
	case len(words) == 2 && words[0] == "mac":
		n.kind = needMAC
		n.mac, err = ether.ParseMAC(words[1])
		if err == nil && n.mac == (ether.MAC{}) {
			err = fmt.Errorf("no card has the address %s", words[1])
		}
	default:
		err = fmt.Errorf(`want "memory >= 8G", "cpus >= 4", "has %s", "label NAME" or "mac ADDRESS"`, SavedData)
	}
	return n, err
}

// CheckFeature says why a role cannot need a feature of that name.
func CheckFeature(s string) error {
	if !slices.Contains(Features(), s) {
		return fmt.Errorf("%.40q is no feature that VIVER looks for: want one of %s", s, strings.Join(Features(), ", "))
	}
	return nil
}

func parseMemory(s string) (uint64, error) {
	for _, u := range units {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := parseAmount(digits, maxAmount)
			return n << u.shift, err
		}
	}
	return 0, fmt.Errorf("%q of memory: want a number with M, G or T behind it", s)
}

func parseAmount(s string, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q: want a number from 1 to %d", s, most)
	}
	return n, nil
}

// String returns the text that ParseNeed reads, "" of the zero Need.
func (n Need) String() string {
	switch n.kind {
	case needMemory:
		for _, u := range units {
			if unit := uint64(1) << u.shift; n.amount%unit == 0 && n.amount/unit <= maxAmount {
				return fmt.Sprintf("memory >= %d%s", n.amount/unit, u.suffix)
			}
		}
	case needCPUs:
		return fmt.Sprintf("cpus >= %d", n.amount)
	case needFeature:
		return "has " + n.word
	case needLabel:
		return "label " + n.word
	case needMAC:
		return "mac " + n.mac.String()
	}
	return ""
}

// metBy reports whether a node meets the need. A machine with 8 GiB in its slots says
// that it has less, because firmware, graphics and the kernel have taken theirs: an
// eighth may be missing.
func (n Need) metBy(node Node) bool {
	switch n.kind {
	case needMemory:
		return node.Memory >= n.amount-n.amount/8
	case needCPUs:
		return node.CPUs > 0 && uint64(node.CPUs) >= n.amount
	case needFeature:
		return slices.Contains(node.Features, n.word)
	case needLabel:
		return slices.Contains(node.Labels, n.word)
	case needMAC:
		return node.MAC == n.mac
	}
	return true
}

// MarshalText returns what String does.
func (n Need) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Need) UnmarshalText(text []byte) (err error) {
	*n, err = ParseNeed(string(text))
	return err
}
