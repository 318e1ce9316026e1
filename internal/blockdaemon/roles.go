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
	if err := control.WriteState(control.RolesFile, held); err != nil {
		return err
	}
	return setRoles(ctx, n.cluster, held, features(n.boot.Features, savedDataDir(1)))
}

// SetRoles implements control.Daemon.
func (s *standalone) SetRoles(ctx context.Context, held []roles.Name) error {
	if s.cluster == nil {
		return errNoMember
	}
	return setRoles(ctx, s.cluster, held, nil)
}

func setRoles(ctx context.Context, c *cluster.Cluster, held []roles.Name, features []string) error {
	return c.UpdateMeta(ctx, func(m *cluster.Meta) { m.TakesRoles, m.Claims, m.Features = true, held, features })
}

// features are those that uinit found. A disk for saved data counts if it is in use:
// one that is full or damaged is not, and what a role writes would be lost.
func features(found []string, saved string) []string {
	if _, err := os.Lstat(saved); err == nil {
		return found
	}
	return slices.DeleteFunc(slices.Clone(found), func(f string) bool { return f == roles.SavedData })
}

// readRoles returns the roles that the daemon before this one was told, and whether it
// was told any: until this one hears again they are held as before.
func readRoles(file string) (held []roles.Name, told bool, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &held)
	}
	if err == nil {
		err = roles.CheckClaims(held)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the roles of this machine: %w", err)
	}
	return held, true, nil
}
