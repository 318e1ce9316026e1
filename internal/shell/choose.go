package shell

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/roles"
)

// Choice says which machines are meant.
type Choice struct {
	All bool
	// Names are hostnames, names that the operator gave, addresses, MAC addresses, IDs,
	// or beginnings that only one machine has; or roles, such as compile/scheduler, for
	// all machines that hold them.
	Names []string
}

// Absent is a machine that is meant and cannot be reached by anybody.
type Absent struct {
	Member control.Member
	Reason string
}

// Choose returns the machines that are meant, each once, ordered by name. The error says
// which name means none, or several.
func Choose(members []control.Member, c Choice) (run []control.Member, absent []Absent, err error) {
	chosen := machines(members)
	if !c.All {
		if chosen, err = named(chosen, c.Names); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(chosen, func(a, b control.Member) int {
		return cmp.Or(cmp.Compare(Label(a), Label(b)), a.ID.Compare(b.ID))
	})
	for _, m := range chosen {
		if why := objection(m); why != "" {
			absent = append(absent, Absent{m, why})
		} else {
			run = append(run, m)
		}
	}
	if len(chosen) == 0 {
		err = errors.New("there is no machine on the network")
	}
	return run, absent, err
}

// named returns the machines of these names.
func named(members []control.Member, names []string) (chosen []control.Member, err error) {
	for _, name := range names {
		found, err := find(members, name)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			if !slices.ContainsFunc(chosen, func(c control.Member) bool { return c.ID == m.ID }) {
				chosen = append(chosen, m)
			}
		}
	}
	return chosen, nil
}

// holders returns the machines that say they hold a role.
func holders(members []control.Member, text string) ([]control.Member, error) {
	role, err := roles.ParseName(text)
	if err != nil {
		return nil, err
	}
	list := filter(members, func(m control.Member) bool { return m.State == control.Alive && slices.Contains(m.Roles, role) })
	if len(list) == 0 {
		return nil, fmt.Errorf("no machine on the network holds the role %s; viver role list shows them", role)
	}
	return list, nil
}

// machines leaves out who is no machine of the network, or none any more: volumes on other
// computers, and who is back with another key.
func machines(members []control.Member) (list []control.Member) {
	back := map[ether.MAC]bool{}
	for _, m := range members {
		if m.State == control.Alive {
			back[m.MAC] = true
		}
	}
	for _, m := range members {
		if m.HTTPPort != 0 && (m.State == control.Alive || !back[m.MAC]) {
			list = append(list, m)
		}
	}
	return list
}

// objection says why a machine cannot be reached, or not be told from another one; "" if
// nothing is known that prevents it.
func objection(m control.Member) string {
	switch {
	case m.State == control.Left:
		return "it was switched off, or restarts"
	case m.State != control.Alive:
		return "it is " + string(m.State) + ": no other node has an answer from it"
	case m.NameState != control.Owned:
		return fmt.Sprintf("its name or address is %s: another machine has it (viver node list)", m.NameState)
	}
	return ""
}

// find returns the machine of this name: the one that owns it, if several claim it. Of a
// role it returns all holders.
func find(members []control.Member, name string) ([]control.Member, error) {
	if strings.Contains(name, "/") { // no machine is called so
		return holders(members, name)
	}
	matching := filter(members, func(m control.Member) bool { return slices.Contains(names(m), key(name)) })
	if len(matching) == 0 && name != "" {
		matching = filter(members, func(m control.Member) bool {
			return slices.ContainsFunc(names(m), func(n string) bool { return strings.HasPrefix(n, strings.ToLower(name)) })
		})
	}
	if good := filter(matching, func(m control.Member) bool { return objection(m) == "" }); len(good) > 0 {
		matching = good
	}
	switch len(matching) {
	case 0:
		return nil, fmt.Errorf("there is no machine %q on the network; viver node list shows them", name)
	case 1:
		return matching, nil
	}
	var all []string
	for _, m := range matching {
		all = append(all, fmt.Sprintf("%s (%s)", Label(m), m.MAC))
	}
	return nil, fmt.Errorf("%q may be %s: say more of its name, or its MAC address", name, strings.Join(all, ", "))
}

// names are all that a machine may be called by.
func names(m control.Member) []string {
	list := []string{strings.ToLower(m.Hostname), strings.ToLower(m.Name), m.Address.String(), m.MAC.String(), m.ID.String()}
	return slices.DeleteFunc(list, func(name string) bool { return name == "" })
}

// key is a name as names has it.
func key(name string) string {
	if mac, err := ether.ParseMAC(name); err == nil {
		return mac.String()
	}
	return strings.ToLower(name)
}

func filter(members []control.Member, is func(control.Member) bool) (list []control.Member) {
	for _, m := range members {
		if is(m) {
			list = append(list, m)
		}
	}
	return list
}
