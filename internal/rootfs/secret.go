package rootfs

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
)

// maxSecret is how much of a file is searched for a private key: one with a whole chain of
// certificates before it has a tenth.
const maxSecret = 64 << 10

// keyLines begin a line that only a private key has: of age and PuTTY. PEM (RFC 7468), in
// which OpenSSH and OpenPGP write theirs too, is told apart in isPrivateKey.
var keyLines = []string{"AGE-SECRET-KEY-1", "PuTTY-User-Key-File-"}

var (
	// wireGuardKey is a line of wg(8), which takes it in any case, and of systemd.netdev(5):
	// 32 bytes in base 64. Other programs have the name of a file there.
	wireGuardKey = regexp.MustCompile(`^(?i:PrivateKey)\s*=\s*[A-Za-z0-9+/]{43}=`)
	// quotedPEM is PEM as a string of JSON, as Google's service accounts have it. Source code
	// that puts such a string together has no key behind the line.
	quotedPEM = regexp.MustCompile(`"-----BEGIN [A-Z ]*PRIVATE KEY-----(\\r)?\\n[A-Za-z0-9+/]{4}`)
)

// isPrivateKey reports whether a text holds a private key.
func isPrivateKey(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark, of Windows
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if label, ok := bytes.CutPrefix(line, []byte("-----BEGIN ")); ok {
			label, ok = bytes.CutSuffix(label, []byte("-----"))
			if ok && (bytes.HasSuffix(label, []byte("PRIVATE KEY")) || bytes.HasSuffix(label, []byte("PRIVATE KEY BLOCK"))) {
				return true
			}
		}
		if slices.ContainsFunc(keyLines, func(begin string) bool { return bytes.HasPrefix(line, []byte(begin)) && len(line) > len(begin) }) {
			return true
		}
		if wireGuardKey.Match(line) {
			return true
		}
	}
	return quotedPEM.Match(text)
}

// holdsKey reports whether a file that may be somebody's has a private key in it.
func holdsKey(name string, c *imagetree.Content) bool {
	if c.Header.Size == 0 || !exclude.IsPersonal(name) {
		return false
	}
	data, err := io.ReadAll(io.LimitReader(c.Whole(), maxSecret))
	return err == nil && isPrivateKey(data) // what cannot be read ends the build where it is copied
}

// settings are files that programs need, and that may hold a password: they stay in an
// image, and are named.
var settings = []string{
	"etc/shadow", "etc/gshadow", "etc/fstab",
	"etc/netplan/*.yaml", "etc/network/interfaces", "etc/network/interfaces.d/*", "etc/systemd/network/*.netdev", "etc/conf.d/net",
	"etc/apt/auth.conf", "etc/apt/auth.conf.d/*", "etc/mysql/debian.cnf", "etc/msmtprc", "etc/exim4/passwd.client", "etc/postfix/sasl_passwd",
	"etc/sssd/sssd.conf", "etc/nslcd.conf", "etc/libnss-ldap.conf", "etc/pam_ldap.conf", "etc/ldap.conf",
}

// secretsIn says what is secret in one of the settings, for people.
func secretsIn(name string, text []byte) (list []string) {
	if path.Base(name) == "shadow" || path.Base(name) == "gshadow" {
		return passwords(text)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.ToLower(strings.TrimSpace(line))
		if line == "" || strings.ContainsRune("#;", rune(line[0])) {
			continue
		}
		for _, word := range secretWords {
			if _, after, ok := strings.Cut(line, word); ok && strings.Trim(after, "=: \t\"'") != "" && !slices.Contains(list, word) {
				list = append(list, word)
			}
		}
	}
	return list
}

// secretWords stand before a password or a key in the settings; what follows them ends
// the word.
var secretWords = []string{"password", "passwd", "passphrase", "psk", "wireless-key", "presharedkey", "private-key", "bindpw", "authtok"}

// passwords says who has a password by shadow(5) or gshadow(5): a hash of it, or none at
// all. A locked one (passwd -l) is a hash behind "!".
func passwords(text []byte) (list []string) {
	for line := range strings.Lines(string(text)) {
		who, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		hash, _, more := strings.Cut(rest, ":")
		locked := strings.HasPrefix(hash, "!")
		hash = strings.TrimLeft(hash, "!")
		switch {
		case !ok || !more || strings.HasPrefix(who, "#") || strings.Trim(hash, "*x") == "" && (hash != "" || locked):
		case hash == "" && strings.Count(line, ":") > 3: // in gshadow it is usual
			list = append(list, who+" has an empty password")
		case hash == "":
		case locked:
			list = append(list, "the password hash of "+who+" (locked)")
		default:
			list = append(list, "the password hash of "+who)
		}
	}
	return list
}

// reportSecrets names what is secret in the settings of a tree, and what is in it although
// its name says that it is secret.
func reportSecrets(tree *imagetree.Tree) error {
	err := tree.Walk(func(name string, e *imagetree.Entry) error {
		if tree.Rules.KeepsSecret(name) {
			tree.Report.Changed(imagetree.Secret, name, e.Stored)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, pattern := range settings {
		names, err := fs.Glob(tree, pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := tree.ReadFile(name)
			if err != nil {
				continue // a directory, or what ends the build where it is copied
			}
			for _, what := range secretsIn(name, text) {
				tree.Report.Changed(imagetree.Secret, name+": "+what, 0)
			}
		}
	}
	return nil
}
