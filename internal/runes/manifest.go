package runes

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/text"

	"viver.lan/internal/roles"
)

// Bounds of what one rune may ask of the running system.
const (
	maxRoles     = 16
	maxServices  = 16
	maxArguments = 128
	maxPorts     = 16
)

// roleTOML is one [[role]].
type roleTOML struct {
	Name  string   `toml:"name"`
	Wants string   `toml:"wants"`
	Needs []string `toml:"needs"`
	Bound string   `toml:"bound"`
}

// serviceTOML is one [[service]].
type serviceTOML struct {
	Name  string     `toml:"name"`
	Role  string     `toml:"role"`
	Start []string   `toml:"start"`
	Stop  string     `toml:"stop"`
	User  string     `toml:"user"`
	Ports []string   `toml:"ports"`
	When  Conditions `toml:"when"`
}

// service is a program that is kept running.
type service struct {
	name   string
	role   string // of this rune; "" for every node
	start  []*template.Template
	source []string // of start, for messages
	stop   string
	user   string
	ports  []Port
	when   Conditions
}

// Offers are the roles that the bundle has to give away on its network.
func (b Bundle) Offers() []roles.Offer { return slices.Clone(b.offers) }

// Lives reports whether the bundle asks for anything while the system runs. Where none
// does, @vrune is not started.
func (b Bundle) Lives() bool {
	if len(b.offers) > 0 || len(b.services) > 0 {
		return true
	}
	for moment := range b.hooks {
		if moment != MomentRoot {
			return true
		}
	}
	return slices.ContainsFunc(b.items, func(it item) bool { return it.live || len(it.roles) > 0 })
}

// completeLive adds what rune.toml says about the running system.
func (m *runeTOML) completeLive(b *Bundle) error {
	if len(m.Role) > maxRoles || len(m.Service) > maxServices {
		return fmt.Errorf("%d roles and %d services; the limits are %d and %d", len(m.Role), len(m.Service), maxRoles, maxServices)
	}
	for i, r := range m.Role {
		offer, err := r.offer(m.Name)
		if err != nil {
			return at(err, "role", i)
		}
		if b.offers, err = addOffer(b.offers, offer); err != nil {
			return at(err, "role", i, "name")
		}
	}
	for i, s := range m.Service {
		svc, err := s.service(*b)
		if err != nil {
			return at(err, "service", i)
		}
		b.services = append(b.services, svc)
	}
	b.settings = m.Settings
	for _, key := range slices.Sorted(maps.Keys(m.Settings)) {
		if !validName(key) {
			return at(errors.New("want up to 63 small letters, digits and dashes"), "settings", key)
		}
	}
	return nil
}

func addOffer(offers []roles.Offer, o roles.Offer) ([]roles.Offer, error) {
	if slices.ContainsFunc(offers, func(have roles.Offer) bool { return have.Name == o.Name }) {
		return nil, fmt.Errorf("role %q is there twice", o.Name.Role)
	}
	return append(offers, o), nil
}

func (r roleTOML) offer(rune string) (roles.Offer, error) {
	if !validName(r.Name) {
		return roles.Offer{}, at(fmt.Errorf("%q: want up to 63 small letters, digits and dashes", r.Name), "name")
	}
	count, err := roles.ParseCount(r.Wants)
	if err != nil {
		return roles.Offer{}, at(err, "wants")
	}
	o := roles.Offer{Name: roles.Name{Rune: rune, Role: r.Name}, Count: count, Bound: r.Bound}
	for _, text := range r.Needs {
		need, err := roles.ParseNeed(text)
		if err != nil {
			return roles.Offer{}, at(err, "needs")
		}
		o.Needs = append(o.Needs, need)
	}
	if r.Bound != "" {
		if err := roles.CheckFeature(r.Bound); err != nil {
			return roles.Offer{}, at(err, "bound")
		}
	}
	return o, nil
}

// userName is what useradd(8) accepts everywhere.
var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

func (s serviceTOML) service(b Bundle) (service, error) {
	svc := service{name: s.Name, role: s.Role, source: s.Start, stop: s.Stop, user: s.User, when: s.When}
	switch {
	case !validName(s.Name):
		return svc, at(fmt.Errorf("%q: want up to 63 small letters, digits and dashes", s.Name), "name")
	case slices.ContainsFunc(b.services, func(have service) bool { return have.name == s.Name }):
		return svc, at(fmt.Errorf("%q is there twice", s.Name), "name")
	case s.Role != "" && !b.offersRole(s.Role):
		return svc, at(fmt.Errorf("%q: this rune has no such [[role]]", s.Role), "role")
	case len(s.Start) == 0 || len(s.Start) > maxArguments || !path.IsAbs(s.Start[0]):
		return svc, at(fmt.Errorf("want a program's path such as \"/usr/sbin/chronyd\" and at most %d arguments", maxArguments-1), "start")
	case !slices.Contains([]string{"", "SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGHUP"}, s.Stop):
		return svc, at(fmt.Errorf("%q: want SIGTERM, SIGINT, SIGQUIT, SIGHUP or SIGKILL", s.Stop), "stop")
	case s.User != "" && !userName.MatchString(s.User):
		return svc, at(fmt.Errorf("%q is no name of a user", s.User), "user")
	}
	if err := s.When.check(); err != nil {
		return svc, at(err, "when")
	}
	if len(s.Ports) > maxPorts {
		return svc, fmt.Errorf("%d ports; the limit is %d", len(s.Ports), maxPorts)
	}
	for _, text := range s.Ports {
		port, err := parsePort(text)
		if err != nil {
			return svc, err
		}
		svc.ports = append(svc.ports, port)
	}
	for _, text := range s.Start {
		parsed, err := parseTemplate("argument", text)
		if err != nil {
			return svc, at(err, "start")
		}
		svc.start = append(svc.start, parsed)
	}
	return svc, nil
}

func (b Bundle) offersRole(role string) bool {
	return slices.ContainsFunc(b.offers, func(o roles.Offer) bool { return o.Name.Role == role })
}

// live checks what [[file]] says of the running system about one path.
func (f fileTOML) live(b *Bundle, it *item) error {
	for _, role := range f.Roles {
		if !b.offersRole(role) {
			return at(fmt.Errorf("%q: this rune has no such [[role]]", role), "roles")
		}
	}
	if f.Live && it.tmpl == nil {
		return at(fmt.Errorf("only a template (its name in files/ ends in %s) can change", templateExt), "live")
	}
	if (f.Live || len(f.Roles) > 0) && it.name != nil {
		return at(errors.New("a path that is a template itself is laid before the system starts, and stays: it takes neither live nor roles"), "path")
	}
	it.live, it.roles = f.Live, f.Roles
	return nil
}

// Configure gives bundles the settings that the network's viver.toml has for them, by
// rune and key. One that no bundle declares is an error in a sentence; the returned
// bundles are usable all the same.
func Configure(bundles []Bundle, settings map[string]map[string]string) ([]Bundle, error) {
	configured := slices.Clone(bundles)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		i := slices.IndexFunc(configured, func(b Bundle) bool { return b.Name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("setting rune.%s: there is no rune of that name; there are %s", name, names(bundles)))
			continue
		}
		b := &configured[i]
		b.values = make(map[string]string)
		for _, key := range slices.Sorted(maps.Keys(settings[name])) {
			if _, ok := b.settings[key]; !ok {
				errs = append(errs, fmt.Errorf("setting rune.%s.%s: %s", name, key, noSuchSetting(*b)))
				continue
			}
			b.values[key] = settings[name][key]
		}
	}
	return configured, errors.Join(errs...)
}

func noSuchSetting(b Bundle) string {
	if len(b.settings) == 0 {
		return "the rune has no settings"
	}
	return "the rune has no such setting; it has " + strings.Join(slices.Sorted(maps.Keys(b.settings)), ", ")
}

// setting is the template function: the network's value, or the template's own default.
func (b Bundle) setting(key, fallback string) (string, error) {
	if _, ok := b.settings[key]; !ok {
		return "", fmt.Errorf("setting %q: %s", key, noSuchSetting(b))
	}
	if value, ok := b.values[key]; ok {
		return value, nil
	}
	return fallback, nil
}
