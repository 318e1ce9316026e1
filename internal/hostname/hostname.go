// Package hostname is the rule for the names of machines and of domains
// (RFC 1123, section 2.1), and what a machine is called that nobody has named.
//
// It knows names in ASCII only. The invariant: a name that passes means nothing
// but itself to a file, a shell or a pattern.
package hostname

import (
	"fmt"
	"strings"
)

// The longest label and the longest name of labels, in bytes (RFC 1035, 2.3.4:
// 255 with a byte before and one behind).
const (
	maxLabel  = 63
	maxDomain = 253
)

// DefaultPrefix begins the name of a machine unless the settings say another.
const DefaultPrefix = "node"

// Default is the name of a machine that nobody has named: a prefix and the digits
// of its MAC address, which is written with colons.
func Default(prefix, mac string) string {
	return prefix + "-" + strings.ReplaceAll(mac, ":", "")
}

// Check says why a machine cannot have this name, which is one without a domain.
func Check(s string) error {
	if !isLabel(s) {
		return fmt.Errorf("%q is no host name: want up to %d letters, digits and hyphens, with no hyphen at an end", s, maxLabel)
	}
	return nil
}

// CheckDomain says why this is not the name of a domain, or of a machine in one:
// names as Check takes them, with dots between.
func CheckDomain(s string) error {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) || len(s) > maxDomain {
			return fmt.Errorf("%q is no domain name: want up to %d letters, digits, hyphens and dots", s, maxDomain)
		}
	}
	return nil
}

func isLabel(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	return s != "" && len(s) <= maxLabel && s == strings.Trim(s, "-") && strings.Trim(s, allowed) == ""
}
