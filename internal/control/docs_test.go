package control

import (
	"encoding"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// fields lists the paths of a type's JSON, as docs/status.md writes them, each with
// the kind of its value.
func fields(path string, t reflect.Type, into map[string]string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	text := reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	switch kind := t.Kind(); {
	case text || kind == reflect.String:
		into[path] = "text"
	case kind == reflect.Bool:
		into[path] = "boolean"
	case t == reflect.TypeFor[[]byte]():
		into[path] = "base64"
	case kind == reflect.Slice:
		fields(path+"[]", t.Elem(), into)
	case kind == reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			fields(strings.TrimPrefix(path+"."+name, "."), t.Field(i).Type, into)
		}
	default:
		into[path] = "number"
	}
}

// The page for programs and the schema are the same.
func TestPageDescribesTheStatus(t *testing.T) {
	page, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	schema, described := map[string]string{}, map[string]string{}
	fields("", reflect.TypeFor[Status](), schema)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z0-9]+) \\| .*\\|$").FindAllStringSubmatch(string(page), -1) {
		described[row[1]] = row[2]
	}
	for path, kind := range schema {
		if described[path] != kind {
			t.Errorf("docs/status.md says of %s that it is %q, want a row %q", path, described[path], fmt.Sprintf("| `%s` | %s | … |", path, kind))
		}
	}
	for path := range described {
		if schema[path] == "" {
			t.Errorf("docs/status.md has %s, which is no field of the status", path)
		}
	}
}
