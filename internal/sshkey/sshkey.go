// Package sshkey is the public half of a machine's SSH host key: how it is read
// from OpenSSH's file, and how the keys of many machines become a file that
// OpenSSH reads.
//
// It knows one kind, Ed25519 (RFC 8709). It proves nothing: who may speak for a
// machine is the business of whoever collected the keys. The invariant: no name
// and no address is given to two keys.
package sshkey

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Key is an Ed25519 public key. The zero value is none.
type Key [32]byte

const kind = "ssh-ed25519"

var errKey = errors.New("not the public half of an Ed25519 key as ssh-keygen writes it")

// Parse reads the first line of a file such as ssh_host_ed25519_key.pub: kind,
// base64, comment.
func Parse(text []byte) (k Key, err error) {
	f := strings.Fields(string(text))
	if len(f) < 2 || f[0] != kind {
		return k, errKey
	}
	blob, err := base64.StdEncoding.DecodeString(f[1])
	raw, ok := bytes.CutPrefix(blob, head())
	if err != nil || !ok || len(raw) != len(k) {
		return k, errKey
	}
	return Key(raw), nil
}

// head is what stands before the key's bytes: the kind and their number, as
// strings of RFC 4251, section 5.
func head() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(kind)))
	return binary.BigEndian.AppendUint32(append(b, kind...), uint32(len(Key{})))
}

// String returns the key as it stands in OpenSSH's files, "" for none.
func (k Key) String() string {
	if k == (Key{}) {
		return ""
	}
	return kind + " " + base64.StdEncoding.EncodeToString(append(head(), k[:]...))
}

// Host is a machine that has a key.
type Host struct {
	Name    string // without a domain; one that is no such name is left out
	Address netip.Addr
	Key     Key
}

// KnownHosts returns the content of a known_hosts file (sshd(8)), ordered as
// hosts are. What two machines claim with different keys is given to neither.
func KnownHosts(hosts []Host) []byte {
	claims := make(map[string]Key)
	disputed := make(map[string]bool)
	for _, h := range hosts {
		for _, name := range h.names() {
			if key, ok := claims[name]; ok && key != h.Key {
				disputed[name] = true
			}
			claims[name] = h.Key
		}
	}
	var out bytes.Buffer
	for _, h := range hosts {
		names := slices.DeleteFunc(h.names(), func(name string) bool { return disputed[name] })
		if h.Key != (Key{}) && len(names) > 0 {
			fmt.Fprintf(&out, "%s %s\n", strings.Join(names, ","), h.Key)
		}
	}
	return out.Bytes()
}

// names are what the host is called, the one it gave itself only if it can be
// neither a pattern nor an address nor of another network.
func (h Host) names() (names []string) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	name := strings.ToLower(h.Name)
	if strings.Trim(name, allowed) == "" && strings.Trim(name, "0123456789") != "" && name != "localhost" {
		names = append(names, name)
	}
	if h.Address.IsValid() {
		names = append(names, h.Address.String())
	}
	return names
}
