// Package kernelconfig holds what a kernel must have to run a diskless image,
// and which of its modules the initramfs carries.
//
// Both are data with a reason for each line, in options.toml and modules.toml;
// this package reads them and judges a configuration. It does not build
// kernels and never looks at a file system. The invariant: nothing is asked of
// a kernel without a sentence that says why.
package kernelconfig

import (
	"bufio"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

//go:embed options.toml
var optionsTOML []byte

//go:embed modules.toml
var modulesTOML []byte

// Need says in which form an option is wanted.
type Need string

const (
	// Builtin options must be part of the kernel itself.
	Builtin Need = "builtin"
	// Module options may also be modules, which the initramfs loads.
	Module Need = "module"
)

// Option is one thing that a kernel must be able to do.
type Option struct {
	// Name is the option without CONFIG_; empty when Any is used.
	Name string `toml:"name"`
	// Any lists options of which one is enough.
	Any []string `toml:"any"`
	// Need is the form it is wanted in.
	Need Need `toml:"need"`
	// Module is the module that carries the option when it is not built in.
	Module string `toml:"module"`
	// Reason says, as a clause, what it is needed for.
	Reason string `toml:"reason"`
}

// Names returns the configuration options that satisfy o, any one of them.
func (o Option) Names() []string {
	if o.Name != "" {
		return []string{o.Name}
	}
	return o.Any
}

// String returns the option as people write it, e.g. "CONFIG_SQUASHFS".
func (o Option) String() string {
	names := o.Names()
	full := make([]string, len(names))
	for i, n := range names {
		full[i] = "CONFIG_" + n
	}
	return strings.Join(full, " or ")
}

// Group is a set of modules that serve one purpose.
type Group struct {
	// Name is the purpose in a word.
	Name string `toml:"name"`
	// Reason says what the machine could not do without them.
	Reason string `toml:"reason"`
	// Late modules are of no use before the network: they need not be in what
	// firmware loads from it.
	Late bool `toml:"late"`
	// NIC modules are of use to a machine that has such a network card only, which
	// may tell before it loads anything.
	NIC bool `toml:"nic"`
	// NoUEFI modules are for network cards from which no machine starts by UEFI. They
	// are that in whatever group they are listed besides.
	NoUEFI bool `toml:"no-uefi"`
	// With names a module of NIC groups: who needs that may at run time ask for any
	// of this group. A kernel that has it built in needs them all for each card.
	With string `toml:"with"`
	// Cards are the PCI IDs of network cards, as lspci(8) writes them, that need this
	// group and whose driver the aliases of modules do not tell.
	Cards []string `toml:"cards"`
	// Modules are module names, with underscores.
	Modules []string `toml:"modules"`
	// Dirs are directories below kernel/ whose modules are all taken, but for those that
	// depend on one of Without, which are modules.
	Dirs    []string `toml:"dirs"`
	Without []string `toml:"without"`
}

// Options returns what every kernel must have.
func Options() ([]Option, error) {
	var file struct {
		Option []Option `toml:"option"`
	}
	if err := decode(optionsTOML, &file); err != nil {
		return nil, fmt.Errorf("options.toml: %w", err)
	}
	return file.Option, nil
}

// Groups returns the modules that the initramfs carries.
func Groups() ([]Group, error) {
	var file struct {
		Group []Group `toml:"group"`
	}
	if err := decode(modulesTOML, &file); err != nil {
		return nil, fmt.Errorf("modules.toml: %w", err)
	}
	return file.Group, nil
}

func decode(data []byte, v any) error {
	return toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(v)
}

// Config is a kernel's configuration: option name without CONFIG_ to value,
// "y", "m" or something else. Options that are not set are absent.
type Config map[string]string

// ParseConfig reads a kernel configuration file (.config).
func ParseConfig(r io.Reader) (Config, error) {
	c := make(Config)
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		name, value, ok := strings.Cut(strings.TrimSpace(s.Text()), "=")
		if name, is := strings.CutPrefix(name, "CONFIG_"); ok && is {
			c[name] = strings.Trim(value, `"`)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("kernel configuration: %w", err)
	}
	return c, nil
}

// Has reports whether the configuration satisfies o, and by a module.
func (c Config) Has(o Option) (ok, asModule bool) {
	for _, name := range o.Names() {
		switch c[name] {
		case "y":
			return true, false
		case "m":
			if o.Need == Module {
				return true, true
			}
		}
	}
	return false, false
}
