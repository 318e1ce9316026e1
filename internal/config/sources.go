package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"viver.lan/internal/cmdline"
)

// AddTOML adds the settings of a viver.toml. A syntax error ends the
// reading of this file; every other problem costs only its own line.
func (c *Config) AddTOML(from Source, data []byte) {
	var p unstable.Parser
	p.Reset(data)
	table := ""
	for p.NextExpression() {
		expr := p.Expression()
		switch expr.Kind {
		case unstable.Table:
			table = joinKey(expr.Key())
		case unstable.ArrayTable:
			table = joinKey(expr.Key())
			c.problem(from, lineOf(&p, expr), table, "a list of tables is not used here")
		case unstable.KeyValue:
			name := joinKey(expr.Key())
			if table != "" {
				name = table + "." + name
			}
			value, err := decodeValue(expr.Value())
			if err != nil {
				c.problem(from, lineOf(&p, expr), name, err.Error())
				continue
			}
			c.apply(from, lineOf(&p, expr), name, value)
		}
	}
	if err := p.Error(); err != nil {
		c.problem(from, errorLine(&p, err), "", "not valid TOML, the rest of the file is not used: "+err.Error())
	}
}

func joinKey(it unstable.Iterator) string {
	var parts []string
	for it.Next() {
		parts = append(parts, string(it.Node().Data))
	}
	return strings.Join(parts, ".")
}

// lineOf returns the line of an expression's key, because a table or a
// key-value node has no place of its own.
func lineOf(p *unstable.Parser, expr *unstable.Node) int {
	it := expr.Key()
	if !it.Next() {
		return 0
	}
	return p.Shape(it.Node().Raw).Start.Line
}

func errorLine(p *unstable.Parser, err error) int {
	var perr *unstable.ParserError
	if !errors.As(err, &perr) || len(perr.Highlight) == 0 {
		return 0
	}
	return p.Shape(p.Range(perr.Highlight)).Start.Line
}

func decodeValue(n *unstable.Node) (any, error) {
	switch n.Kind {
	case unstable.String:
		return string(n.Data), nil
	case unstable.Bool:
		return string(n.Data) == "true", nil
	case unstable.Integer:
		return strconv.ParseInt(string(n.Data), 0, 64)
	case unstable.Array:
		items := []string{}
		it := n.Children()
		for it.Next() {
			item := it.Node()
			switch item.Kind {
			case unstable.String:
				items = append(items, string(item.Data))
			case unstable.Comment:
			default:
				return nil, fmt.Errorf("want a list of strings, found %s in it", item.Kind)
			}
		}
		return items, nil
	}
	return nil, fmt.Errorf("a value of this kind (%s) is not used here", n.Kind)
}

// AddCommandLine adds the viver.* arguments, and the arguments of live systems that mean the same: overlay-size=, persistence,
// nopersistence. boot names arguments that are no settings but tell a boot
// where it came from; they are ignored.
func (c *Config) AddCommandLine(line cmdline.Line, boot ...string) {
	for _, arg := range line {
		switch arg.Name {
		case "overlay-size":
			arg.Name = "overlay.size"
		case "persistence", "nopersistence":
			c.apply(CommandLine, 0, "disks.use", arg.Name == "persistence")
			continue
		default:
			name, ok := strings.CutPrefix(arg.Name, cmdline.Prefix)
			if !ok || slices.Contains(boot, name) {
				continue
			}
			arg.Name = name
		}
		c.apply(CommandLine, 0, arg.Name, argValue(arg))
	}
}

// argValue turns an argument into what its setting takes; a command line has
// only text.
func argValue(arg cmdline.Arg) any {
	for _, k := range keys {
		if k.name != arg.Name {
			continue
		}
		switch k.fallback.(type) {
		case bool:
			if on, ok := arg.Bool(); ok {
				return on
			}
		case int64:
			if n, err := strconv.ParseInt(arg.Value, 10, 64); err == nil {
				return n
			}
		case []string:
			if arg.Value == "" {
				return []string{}
			}
			return strings.Split(arg.Value, ",")
		}
	}
	return arg.Value
}
