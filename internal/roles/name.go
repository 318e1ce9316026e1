package roles

import (
	"cmp"
	"fmt"
	"strings"
)

// The longest names, in bytes: "role/" and a Name fit into the key of an operator
// override.
const (
	maxRune = 32
	maxRole = 26
	maxWord = 32 // a label or a feature
)

// Name is a role of a rune.
type Name struct{ Rune, Role string }

// ParseName reads a name as String writes it.
func ParseName(s string) (Name, error) {
	bundle, role, ok := strings.Cut(s, "/")
	if !ok || CheckWord(bundle) != nil || CheckWord(role) != nil || len(bundle) > maxRune || len(role) > maxRole {
		return Name{}, fmt.Errorf("%.80q is no role: want RUNE/ROLE, such as compile/scheduler, of lower-case letters, digits and hyphens, up to %d and %d of them", s, maxRune, maxRole)
	}
	return Name{Rune: bundle, Role: role}, nil
}

// String returns the text of the name, "" of the zero Name.
func (n Name) String() string {
	if n == (Name{}) {
		return ""
	}
	return n.Rune + "/" + n.Role
}

// Compare orders names by rune, then by role.
func (n Name) Compare(other Name) int {
	return cmp.Or(cmp.Compare(n.Rune, other.Rune), cmp.Compare(n.Role, other.Role))
}

// MarshalText returns what String does.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Name) UnmarshalText(text []byte) (err error) {
	*n, err = ParseName(string(text))
	return err
}

// CheckWord says why a label, a feature or one half of a Name cannot be called so.
func CheckWord(s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if s == "" || len(s) > maxWord || strings.Trim(s, allowed) != "" || strings.Trim(s, "-") != s {
		return fmt.Errorf("%.40q: want up to %d lower-case letters, digits and hyphens, with no hyphen at an end", s, maxWord)
	}
	return nil
}

// Bounds on what one node claims, so that its facts fit into one message of the gossip.
const (
	MaxClaims = 16
	// maxClaimBytes bounds the names, a byte for the length of each included.
	maxClaimBytes = 192
)

// Claimable returns the roles of a list that one node can claim, and the last ones, which
// are too many.
func Claimable(list []Name) (claims, over []Name) {
	n := len(list)
	for n > 0 && CheckClaims(list[:n]) != nil {
		n--
	}
	return list[:n], list[n:]
}

// CheckClaims says why a node cannot claim these roles.
func CheckClaims(claims []Name) error {
	size := 0
	for i, n := range claims {
		if _, err := ParseName(n.String()); err != nil {
			return err
		}
		if i > 0 && claims[i-1].Compare(n) >= 0 {
			return fmt.Errorf("role %s comes after %s: want each role once, in the order of the names", n, claims[i-1])
		}
		size += 1 + len(n.String())
	}
	if len(claims) > MaxClaims || size > maxClaimBytes {
		return fmt.Errorf("%d roles with names of %d bytes: one node can hold %d roles, with names of %d bytes", len(claims), size, MaxClaims, maxClaimBytes)
	}
	return nil
}
