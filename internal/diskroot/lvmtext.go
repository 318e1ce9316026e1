package diskroot

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// section is a part of the text in which LVM keeps its metadata: values by their names, each a section, a
// string, an int64 or a list ([]any) of the last two.
type section map[string]any

func (s section) text(key string) string {
	v, _ := s[key].(string)
	return v
}

func (s section) number(key string) int64 {
	v, _ := s[key].(int64)
	return v
}

func (s section) section(key string) section {
	v, _ := s[key].(section)
	return v
}

func (s section) list(key string) []any {
	v, _ := s[key].([]any)
	return v
}

// token is a word, a string or a sign of the text; what is between them and comments are none.
var token = regexp.MustCompile(`#[^\n]*|"(?:[^"\\]|\\.)*"|[\w.+-]+|[{}=\[\],]`)

// parseText reads a text of LVM. It is that of a stranger.
func parseText(text string) (section, error) {
	p := &textParser{}
	for _, t := range token.FindAllString(text, -1) {
		if !strings.HasPrefix(t, "#") {
			p.tokens = append(p.tokens, t)
		}
	}
	s, err := p.section(0)
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("%q where a name is expected", p.tokens[0])
	}
	if err != nil {
		return nil, fmt.Errorf("the metadata of LVM: %w", err)
	}
	return s, nil
}

type textParser struct{ tokens []string }

func (p *textParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

// section reads up to the end of the text, or up to the brace behind it.
func (p *textParser) section(depth int) (section, error) {
	const deepest = 8
	if depth > deepest {
		return nil, errors.New("it has sections in sections without end")
	}
	s := make(section)
	for len(p.tokens) > 0 && p.tokens[0] != "}" {
		name := p.next()
		switch sign := p.next(); sign {
		case "{":
			inner, err := p.section(depth + 1)
			if err != nil {
				return nil, err
			}
			if p.next() != "}" {
				return nil, fmt.Errorf("section %s has no end", name)
			}
			s[name] = inner
		case "=":
			v, err := p.value()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			s[name] = v
		default:
			return nil, fmt.Errorf("%q behind %q", sign, name)
		}
	}
	return s, nil
}

func (p *textParser) value() (any, error) {
	if len(p.tokens) == 0 || p.tokens[0] != "[" {
		return scalar(p.next())
	}
	p.next()
	list := []any{}
	for {
		switch t := p.next(); t {
		case "]":
			return list, nil
		case ",":
		default:
			v, err := scalar(t)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
	}
}

func scalar(t string) (any, error) {
	if inner, ok := strings.CutPrefix(t, `"`); ok {
		return strings.TrimSuffix(inner, `"`), nil // names that LVM allows have nothing to unescape
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a number nor a string", t)
	}
	return n, nil
}
