package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"viver.lan/internal/durable"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
)

// State is what runs of the runes on this machine: for people (viver rune list), for
// programs, and for the process that comes after this one. Lost at shutdown.
type State struct {
	// Settled says that the members of the network are known, so that roles are held.
	Settled bool `json:"settled"`
	// Roles are those that the runes of this machine have to give away.
	Roles []roles.Offer `json:"roles"`
	// Accounts are what of the runes' users and groups could not be done, in sentences.
	Accounts []string `json:"accounts,omitempty"`
	// Held are those that this machine holds.
	Held  []roles.Name `json:"held"`
	Runes []RuneState  `json:"runes"`
	// Layer is the live layer in use, zero for none.
	Layer livelayer.Digest `json:"layer,omitzero"`
	// Problems are sentences about no rune in particular.
	Problems []string `json:"problems,omitempty"`
}

// RuneState is how a rune is in the running system.
type RuneState struct {
	Name    string        `json:"name"`
	Outcome runes.Outcome `json:"outcome"`
	// Reason is a sentence for people; empty when applied.
	Reason string `json:"reason,omitempty"`
	// Files are those that @vrune laid and will remove, Roles those that the hook
	// role-gained has run for.
	Files    []string       `json:"files,omitempty"`
	Roles    []string       `json:"roles,omitempty"`
	Services []ServiceState `json:"services,omitempty"`
	// Hooks are how the last one of each moment ended.
	Hooks []HookState `json:"hooks,omitempty"`
	// Booted says that the hook of that moment has run, Members is what the last
	// members-changed was about.
	Booted  bool   `json:"booted,omitempty"`
	Members string `json:"members,omitempty"`
	// Armed says that the init knows the hook shutdown of this very rune. Whoever begins to
	// keep the rune does not believe it, and arms again.
	Armed bool `json:"-"`
}

// HookState is how a hook ended.
type HookState struct {
	Moment runes.Moment `json:"moment"`
	Role   string       `json:"role,omitempty"`
	// Reason is why it failed, "" when it did not.
	Reason  string  `json:"reason,omitempty"`
	Seconds float64 `json:"seconds"` // that it took
}

// noteHook keeps how the last hook of its moment ended.
func (s *RuneState) noteHook(h HookState) {
	s.Hooks = slices.DeleteFunc(s.Hooks, func(old HookState) bool { return old.Moment == h.Moment && old.Role == h.Role })
	s.Hooks = append(s.Hooks, h)
}

// ReadState reads what a runner left. That there is none yet is no error.
func ReadState(path string) (State, error) {
	var s State
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return State{}, fmt.Errorf("read the runes' state: %s: %w", path, err)
	}
	return s, nil
}

// Start is what uinit tells the runner.
type Start struct {
	// Facts are about this machine alone; the runner adds the network's.
	Facts runes.Facts `json:"facts"`
	// Off are the runes that the settings leave out, Settings those of runes.
	Off      []string                     `json:"off,omitempty"`
	Settings map[string]map[string]string `json:"settings,omitempty"`
	// Layer is the live layer that the machine booted with, zero for none.
	Layer livelayer.Digest `json:"layer,omitzero"`
	// LayerNetwork is the name of the network that the owner signed that layer for.
	LayerNetwork string `json:"layer_network,omitempty"`
}

// WriteStart has the runner begin as soon as the machine is handed over. The facts hold
// a private key, so root alone reads the file.
func WriteStart(path string, s Start) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("tell the runner: %w", err)
	}
	return durable.WriteFile(path, data, 0o600)
}

// ReadStart reads what uinit told.
func ReadStart(path string) (Start, error) {
	var s Start
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read what uinit found out: %w", err)
	}
	return s, nil
}
