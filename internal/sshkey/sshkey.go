// Package sshkey is a machine's SSH host key: how one is made, how its public half is
// read from OpenSSH's file, and how those of many machines become a file that OpenSSH
// reads.
//
// It knows one kind, Ed25519 (RFC 8709). It proves nothing: who may speak for a
// machine is the business of whoever collected the keys. The invariant: no name
// and no address is given to two keys.
package sshkey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"viver.lan/internal/hostname"
)

// Key is an Ed25519 public key. The zero value is none.
type Key [32]byte

var errKey = errors.New("not the public half of an Ed25519 key as ssh-keygen writes it")

// Generate makes a key and returns both halves as OpenSSH keeps them in files
// (PROTOCOL.key); the public one is a line without its end.
func Generate(comment string) (private, public string, err error) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", "", fmt.Errorf("make an SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return "", "", fmt.Errorf("make an SSH key: %w", err)
	}
	return string(pem.EncodeToMemory(block)), Key(pub).String() + " " + comment, nil
}

// Parse reads the first key of a file such as ssh_host_ed25519_key.pub.
func Parse(text []byte) (k Key, err error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil || public.Type() != ssh.KeyAlgoED25519 {
		return k, errKey
	}
	return Key(public.(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)), nil
}

// String returns the key as it stands in OpenSSH's files, "" for none.
func (k Key) String() string {
	if k == (Key{}) {
		return ""
	}
	public, _ := ssh.NewPublicKey(ed25519.PublicKey(k[:])) // fails for a wrong length only
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(public)))
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
	name := strings.ToLower(h.Name)
	if hostname.Check(name) == nil && strings.Trim(name, "0123456789") != "" && name != "localhost" {
		names = append(names, name)
	}
	if h.Address.IsValid() {
		names = append(names, h.Address.String())
	}
	return names
}
