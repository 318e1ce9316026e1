// Package shell reaches other nodes through the ssh program of this computer: one of
// them for a person, or many at once for one command.
//
// It says which machines are meant, has ssh accept each only by the host key that it
// published, and finds out what became of a command. Who may log in is the
// business of those machines, and how output looks that of whoever shows it.
// The invariant: a command ends when this end of its connection does, however that comes.
package shell

import (
	"cmp"
	"fmt"
	"os/exec"

	"viver.lan/internal/control"
	"viver.lan/internal/sshkey"
)

// SSH says how machines are reached.
type SSH struct {
	Program    string // as Find returns it
	KnownHosts string // file with the host keys of the network
	User       string // who logs in
}

// Find returns the path of this computer's ssh.
func Find() (string, error) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		return "", fmt.Errorf("there is no ssh on this computer (Debian: package openssh-client): %w", err)
	}
	return program, nil
}

// Args are the arguments with which ssh connects to a machine, before what is asked of
// it. ssh takes the first value that it is given of an option, so that neither what
// follows nor a user's configuration weakens them. A connection that is there already
// is not used: nobody knows by which key it was accepted.
func (s SSH) Args(m control.Member) []string {
	return []string{
		"-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=" + s.KnownHosts, "-o", "UpdateHostKeys=no",
		"-o", "ControlPath=none", "-l", s.User, m.Address.String(),
	}
}

// KnownHosts returns the content of a known_hosts file (sshd(8)) with the keys that the
// members publish who are there and own their names.
func KnownHosts(members []control.Member) []byte {
	var hosts []sshkey.Host
	for _, m := range members {
		// One without a key, or with one that ssh could not read, is left out.
		if key, err := sshkey.Parse([]byte(m.HostKey)); err == nil && objection(m) == "" {
			hosts = append(hosts, sshkey.Host{Name: m.Hostname, Address: m.Address, Key: key})
		}
	}
	return sshkey.KnownHosts(hosts)
}

// Label is what a machine is called where its output is shown.
func Label(m control.Member) string { return cmp.Or(m.Hostname, m.Address.String()) }
