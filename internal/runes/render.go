package runes

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/text"
)

// maxRendered bounds a rendered file, so that a runaway template ends.
const maxRendered = 4 << 20

// parseTemplate checks a template when its rune is read, long before there is
// a root to ask. Its errors begin with the name and the line.
func parseTemplate(name, source string) (*template.Template, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(templateFuncs(scope{})).Parse(source)
	return t, plainly(err)
}

// plainly drops what the template package says before name and line.
func plainly(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), "template: "))
}

// scope is what a template of a bundle sees beside the facts' own names.
type scope struct {
	t     *target
	b     Bundle
	facts Facts
	path  string // of the file that is rendered
}

// rendered returns the item as it is to be laid on one root: with its own path
// and content where it had templates for them.
func rendered(it item, s scope) (item, error) {
	s.path = it.path
	if it.name != nil {
		name, err := execute(it.name, s)
		if err != nil {
			return it, err
		}
		if it.path, err = rootPath(string(name)); err != nil {
			return it, err
		}
	}
	var err error
	if it.tmpl != nil {
		s.path = it.path
		it.data, err = execute(it.tmpl, s)
	}
	return it, err
}

func execute(parsed *template.Template, s scope) ([]byte, error) {
	tmpl, err := parsed.Clone()
	if err != nil {
		return nil, err
	}
	out := &limitedBuffer{}
	err = tmpl.Funcs(templateFuncs(s)).Execute(out, s.facts)
	return out.Bytes(), plainly(err)
}

func templateFuncs(s scope) template.FuncMap {
	return template.FuncMap{
		"existing": func() (string, error) { return s.t.content(s.path) },
		"exists": func(p string) (bool, error) {
			p, err := rootPath(p)
			return err == nil && s.t.exists(p), err
		},
		"match": func(re, text string) (bool, error) {
			r, err := lines(re)
			return err == nil && r.MatchString(text), err
		},
		"without": without,
		"replace": func(re, repl, text string) (string, error) {
			r, err := lines(re)
			if err != nil {
				return "", err
			}
			return r.ReplaceAllString(text, repl), nil
		},
		"join":    func(sep string, list []string) string { return strings.Join(list, sep) },
		"setting": s.b.setting,
		"holders": s.holders,
		"holder":  s.holder,
		"holds":   s.holds,
	}
}

// lines compiles an expression in which ^ and $ stand for the ends of lines.
func lines(re string) (*regexp.Regexp, error) { return regexp.Compile("(?m)" + re) }

func without(re, text string) (string, error) {
	r, err := lines(re)
	if err != nil {
		return "", err
	}
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !r.MatchString(strings.TrimSuffix(line, "\n")) {
			kept.WriteString(line)
		}
	}
	return kept.String(), nil
}

type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxRendered {
		return 0, fmt.Errorf("the result is larger than %d bytes", maxRendered)
	}
	return b.Buffer.Write(p)
}
