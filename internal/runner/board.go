package runner

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"

	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/livelayer"
)

// board is what everybody may know of the runes on this machine: a file that is written
// whenever something of it has changed.
type board struct {
	file string
	// ports is where the block daemon reads which ports of services it keeps open.
	ports string
	log   *slog.Logger
	// places is held while a file is laid or taken away and that is noted: two runes may
	// have the same place one after the other.
	places sync.Mutex

	mu      sync.Mutex // guards what follows; nothing is called under it but the files' writing
	state   State
	written []byte // what the files say; nil when that is not known
}

// change changes the state, and writes it unless the files say so already.
func (b *board) change(f func(*State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.state)
	data, err := json.MarshalIndent(b.state, "", "  ")
	if err == nil && bytes.Equal(data, b.written) {
		return
	}
	b.written = nil
	if err == nil {
		err = durable.WriteFile(b.file, append(data, '\n'), 0o644)
	}
	if err != nil {
		b.log.Warn("the runes' state is not saved", "error", err)
	}
	errPorts := b.openPorts()
	if errPorts != nil {
		b.log.Warn("a firewall may close the ports of runes", "error", errPorts)
	}
	if err == nil && errPorts == nil {
		b.written = data
	}
}

// openPorts tells the block daemon which ports services listen on, when they are others
// than before.
func (b *board) openPorts() error {
	var now control.Ports
	for _, r := range b.state.Runes {
		for _, s := range r.Services {
			for _, p := range s.Ports {
				list := &now.TCP
				if p.Protocol == "udp" {
					list = &now.UDP
				}
				if !slices.Contains(*list, p.Number) && len(*list) < control.MaxPorts {
					*list = append(*list, p.Number)
				}
			}
		}
	}
	if was, err := control.ReadPorts(b.ports); err == nil && reflect.DeepEqual(was, now) {
		return nil
	}
	return control.WriteState(b.ports, now)
}

// put notes how a rune is. Its services keep what is known of them.
func (b *board) put(r RuneState) {
	b.change(func(s *State) {
		r := r.clone()
		i := slices.IndexFunc(s.Runes, func(old RuneState) bool { return old.Name == r.Name })
		if i < 0 {
			s.Runes = append(s.Runes, r)
			slices.SortFunc(s.Runes, func(a, b RuneState) int { return strings.Compare(a.Name, b.Name) })
			return
		}
		for j, now := range r.Services {
			for _, old := range s.Runes[i].Services {
				if old.same(now) {
					r.Services[j] = old
				}
			}
		}
		s.Runes[i] = r
	})
}

// drop forgets a rune.
func (b *board) drop(name string) {
	b.change(func(s *State) {
		s.Runes = slices.DeleteFunc(s.Runes, func(r RuneState) bool { return r.Name == name })
	})
}

// layer is the live layer that was in use last.
func (b *board) layer() livelayer.Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.Layer
}

// get returns what is known of a rune.
func (b *board) get(name string) RuneState {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.state.Runes {
		if r.Name == name {
			r.Armed = false
			return r.clone()
		}
	}
	return RuneState{Name: name}
}

// others reports whether another rune has a file.
func (b *board) others(name, path string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.state.Runes, func(r RuneState) bool { return r.Name != name && slices.Contains(r.Files, path) })
}

func (s RuneState) clone() RuneState {
	s.Files, s.Roles = slices.Clone(s.Files), slices.Clone(s.Roles)
	s.Services, s.Hooks = slices.Clone(s.Services), slices.Clone(s.Hooks)
	return s
}

// names returns the runes that something is known of.
func (b *board) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, r := range b.state.Runes {
		list = append(list, r.Name)
	}
	return list
}

// units returns the services that are wanted to run.
func (b *board) units() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, r := range b.state.Runes {
		for _, s := range r.Services {
			list = append(list, s.Unit)
		}
	}
	return list
}

// observe notes how the services are, and returns the runes of those that are not there
// any more.
func (b *board) observe(conditions map[string]condition) []string {
	var missing []string
	b.change(func(s *State) {
		for i := range s.Runes {
			r := &s.Runes[i]
			for j := range r.Services {
				c, there := conditions[r.Services[j].Unit]
				if !there {
					c = condition{state: Waiting, reason: "ended"}
					missing = append(missing, r.Name)
				}
				if r.Services[j].State == Running && c.state != Running {
					b.log.Warn("a service of a rune does not run", "unit", r.Services[j].Unit, "reason", c.reason, "restarts", c.restarts)
				}
				r.Services[j].State, r.Services[j].Restarts, r.Services[j].Reason = c.state, c.restarts, c.reason
			}
		}
	})
	return missing
}

// accounts notes what of the users and groups could not be done, and reports whether
// that is news.
func (b *board) accounts(problems []string) (news bool) {
	b.change(func(s *State) {
		news = !slices.Equal(s.Accounts, problems)
		s.Accounts = problems
	})
	return news
}
