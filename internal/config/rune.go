package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// runePrefix begins the names of the settings of runes: rune.NAME.KEY.
const runePrefix = "rune."

// Bounds of what the sources may set for runes.
const (
	maxRuneSettings = 256
	maxRuneValue    = 4096
)

// applyRune takes a setting of a rune.
func (c *Config) applyRune(from Source, line int, name string, value any) {
	bundle, key, ok := cutRune(name)
	text, isText := value.(string)
	switch {
	case !ok:
		c.problem(from, line, name, "no such setting; that of a rune is written as a table [rune.NAME] with KEY = \"value\"")
	case !isText:
		c.problem(from, line, name, wrongType("a string in quotes", value).Error())
	case len(text) > maxRuneValue:
		c.problem(from, line, name, fmt.Sprintf("%d bytes; the limit is %d", len(text), maxRuneValue))
	case from < c.source[name]:
	case len(c.source) > len(keys)+maxRuneSettings:
		c.problem(from, line, name, fmt.Sprintf("more than %d settings of runes", maxRuneSettings))
	default:
		if c.settings.Runes == nil {
			c.settings.Runes = make(map[string]map[string]string)
		}
		if c.settings.Runes[bundle] == nil {
			c.settings.Runes[bundle] = make(map[string]string)
		}
		c.settings.Runes[bundle][key], c.source[name] = text, from
	}
}

func cutRune(name string) (bundle, key string, ok bool) {
	name, ok = strings.CutPrefix(name, runePrefix)
	bundle, key, cut := strings.Cut(name, ".")
	return bundle, key, ok && cut && bundle != "" && key != "" && !strings.Contains(key, ".")
}

// runeSettings lists the settings of runes in a fixed order.
func (c *Config) runeSettings() []Setting {
	var list []Setting
	for _, bundle := range slices.Sorted(maps.Keys(c.settings.Runes)) {
		values := c.settings.Runes[bundle]
		for _, key := range slices.Sorted(maps.Keys(values)) {
			name := runePrefix + bundle + "." + key
			list = append(list, Setting{Name: name, Value: values[key], Source: c.source[name], Doc: "setting of the rune " + bundle})
		}
	}
	return list
}

// RuneSettings returns the settings of runes that are in a list, by rune and key.
func RuneSettings(list []Setting) map[string]map[string]string {
	all := make(map[string]map[string]string)
	for _, s := range list {
		bundle, key, ok := cutRune(s.Name)
		if !ok {
			continue
		}
		if all[bundle] == nil {
			all[bundle] = make(map[string]string)
		}
		all[bundle][key] = s.Value
	}
	return all
}
