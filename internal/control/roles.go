package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

// RoleNodes returns the members to which roles can be given: those that are alive, run
// an image of this network, have something that carries out roles, and whose names are their own.
// This machine is one before it says so: who asks is about to.
func (s *Status) RoleNodes() (nodes []roles.Node) {
	for _, m := range s.Members {
		if m.State != Alive || m.NameState != Owned || !s.Runs(m.Image) || !m.TakesRoles && m.ID != s.ID {
			continue
		}
		nodes = append(nodes, roles.Node{ID: m.ID, MAC: m.MAC, Hostname: m.Hostname, First: m.First, Memory: m.Memory, CPUs: m.CPUs,
			Features: m.Features, Labels: m.Labels, Claims: m.Roles})
	}
	return nodes
}

// Pins returns where the operator wants roles. An override that cannot be read is left
// out and reported.
func (s *Status) Pins() (roles.Pins, []error) {
	texts, invalid := operator.Pins(s.Overrides)
	pins := make(roles.Pins, len(texts))
	for text, macs := range texts {
		name, err := roles.ParseName(text)
		if err != nil {
			invalid = append(invalid, fmt.Errorf("override %s: %w", operator.PinOf(text), err))
			continue
		}
		pins[name] = roles.Pin{On: macs}
	}
	return pins, invalid
}

// SetRoles has the daemon tell the members which roles this machine holds, in the order
// of their names. Without any it says that the machine takes roles: from then on others
// count on it.
func (c *Client) SetRoles(ctx context.Context, held []roles.Name) error {
	return c.post(ctx, "roles", append([]roles.Name{}, held...))
}

// maxRoles bounds the body of SetRoles.
const maxRoles = 4 << 10

// setRoles answers SetRoles, of root alone: the agent answers strangers, and has no say
// in what this machine does.
func setRoles(d Daemon) http.HandlerFunc {
	return rootOnly(func(w http.ResponseWriter, r *http.Request) {
		var held []roles.Name
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRoles)).Decode(&held)
		if err == nil {
			err = roles.CheckClaims(held)
		}
		if err == nil {
			err = d.SetRoles(r.Context(), held)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
}

// callerKey is the key of the caller's user ID in the context of a request.
type callerKey struct{}

// withCaller puts the user ID of whoever opened the connection into its context.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	uid, err := callerOf(conn)
	if err != nil {
		return ctx // nobody we know
	}
	return context.WithValue(ctx, callerKey{}, uid)
}

func callerOf(conn net.Conn) (uid uint32, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("no Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
