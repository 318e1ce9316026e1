package runner

import (
	"context"
	"slices"

	"viver.lan/internal/runes"
)

// ServiceState is how a service of a rune is.
type ServiceState struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"` // that it runs for
	Unit string `json:"unit"`           // its name in systemd, where there is one
	// State is one of the states below.
	State string `json:"state"`
	// Restarts is how often it was started again because it had ended.
	Restarts int `json:"restarts"`
	// Reason is why it does not run, for people.
	Reason string   `json:"reason,omitempty"`
	Start  []string `json:"start"`
	Stop   string   `json:"stop,omitempty"`
	User   string   `json:"user,omitempty"`
	// Ports are kept open in the machine's firewall while the service is wanted.
	Ports []runes.Port `json:"ports,omitempty"`
}

// The states of a service.
const (
	Running  = "running"
	Starting = "starting" // for the first time, or again because it had ended
	Waiting  = "waiting"  // for a hook, or to be tried again
)

// unitOf is the name of a service outside of its rune.
func unitOf(bundle, name string) string { return "viver-" + bundle + "-" + name + ".service" }

func stateOf(bundle string, s runes.Service) ServiceState {
	return ServiceState{Name: s.Name, Role: s.Role, Unit: unitOf(bundle, s.Name), State: Starting, Start: s.Start, Stop: s.Stop, User: s.User, Ports: s.Ports}
}

// same reports whether the two are the same program, started the same way.
func (s ServiceState) same(other ServiceState) bool {
	return s.Unit == other.Unit && s.User == other.User && s.Stop == other.Stop && slices.Equal(s.Start, other.Start) && slices.Equal(s.Ports, other.Ports)
}

// condition is what services says of one of them.
type condition struct {
	state    string
	restarts int
	reason   string
}

// services keeps programs running.
type services interface {
	// start starts a service, in place of what has its unit's name. It is kept running
	// from then on.
	start(ctx context.Context, s ServiceState) error
	// stop ends it and all that it has started. One that is not there is stopped.
	stop(ctx context.Context, s ServiceState) error
	// conditions tells how those of these units are that there are.
	conditions(ctx context.Context, units []string) (map[string]condition, error)
}
