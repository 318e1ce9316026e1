package blockdaemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/roles"
)

// SetRoles implements control.Daemon.
func (n *node) SetRoles(ctx context.Context, held []roles.Name) error {
	n.rolesMu.Lock() // a disk that hangs holds up one caller, the others only wait
	defer n.rolesMu.Unlock()
	_, err := os.Lstat(savedDataDir(1))
	said := saidRoles{Takes: true, Held: held, Features: features(n.boot.Features, err == nil)}
	if err := control.WriteState(control.RolesFile, said); err != nil {
		return err
	}
	return setRoles(ctx, n.cluster, said)
}

// SetRoles implements control.Daemon.
func (s *standalone) SetRoles(ctx context.Context, held []roles.Name) error {
	if s.cluster == nil {
		return errNoMember
	}
	return setRoles(ctx, s.cluster, saidRoles{Takes: true, Held: held})
}

// saidRoles is what the members are told of this machine and roles, and RolesFile.
type saidRoles struct {
	Takes    bool         `json:"takes"`
	Held     []roles.Name `json:"held"`
	Features []string     `json:"features"`
}

func setRoles(ctx context.Context, c *cluster.Cluster, said saidRoles) error {
	return c.UpdateMeta(ctx, func(m *cluster.Meta) { m.TakesRoles, m.Claims, m.Features = said.Takes, said.Held, said.Features })
}

// features are those that uinit found. What needs the disk for saved data counts if that
// is in use: one that is full or damaged is not, and what a role writes would be lost.
func features(found []string, saved bool) []string {
	if saved {
		return found
	}
	return slices.DeleteFunc(slices.Clone(found), func(f string) bool { return f == roles.SavedData || f == roles.Homes })
}

// readRoles returns what the daemon before this one said, nil for nothing: until this one
// hears again that stays so.
func readRoles(file string) (*saidRoles, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	said := new(saidRoles)
	if err == nil {
		err = json.Unmarshal(data, said)
	}
	if err == nil {
		err = roles.CheckClaims(said.Held)
	}
	if err != nil {
		return nil, fmt.Errorf("read the roles of this machine: %w", err)
	}
	return said, nil
}
