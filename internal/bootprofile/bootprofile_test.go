package bootprofile

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/bootrecord"
	"viver.lan/internal/squashmap"
)

const u = bootrecord.Unit

// file is one with the given blocks, each an offset and a length.
func file(path string, blocks ...squashmap.Extent) squashmap.File {
	return squashmap.File{Path: path, Blocks: blocks}
}

func TestOrderIsThatOfTheReads(t *testing.T) {
	large, packed := squashmap.Extent{Offset: 96, Length: 10 * u}, squashmap.Extent{Offset: 20*u + 1, Length: 2 * u}
	files := []squashmap.File{
		{Path: "large", Blocks: []squashmap.Extent{large, {Offset: 96 + 10*u, Length: 5 * u}, packed}, Fragment: true},
		file("page", squashmap.Extent{Offset: 96 + 15*u, Length: 200}),
		file("next", squashmap.Extent{Offset: 96 + 15*u + 200, Length: u}),
		{Path: "small", Blocks: []squashmap.Extent{packed}, Fragment: true},
		file("same", large),
		file("far", squashmap.Extent{Offset: 100 * u, Length: 1}),
		file("huge", squashmap.Extent{Offset: 200 * u, Length: 10 * u}, squashmap.Extent{Offset: 210 * u, Length: 70 * u}),
	}
	for _, c := range []struct {
		name, want string
		read       []bootrecord.Range
	}{
		{"nothing", "", nil},
		{"no file", "", []bootrecord.Range{{Start: 50, Count: 3}, {Start: 101, Count: 1}}},
		{"a block of one, and its equal", "large same", []bootrecord.Range{{Start: 0, Count: 11}}},
		{"a block in two parts", "large same", []bootrecord.Range{{Start: 5, Count: 6}, {Start: 0, Count: 5}}},
		{"all but the end of a block", "", []bootrecord.Range{{Start: 0, Count: 10}}},
		{"a page that is shared", "page", []bootrecord.Range{{Start: 15, Count: 1}}},
		{"in the order of the reads", "far page next small large same", []bootrecord.Range{{Start: 100, Count: 1}, {Start: 15, Count: 2}, {Start: 20, Count: 3}, {Start: 0, Count: 11}}},
		{"the small ones that share a block", "small", []bootrecord.Range{{Start: 20, Count: 3}}},
		{"an eighth of a large one", "huge", []bootrecord.Range{{Start: 200, Count: 10}}},
		{"less than that", "", []bootrecord.Range{{Start: 210, Count: 60}}},
		{"all", "large same page next small far huge", []bootrecord.Range{{Start: 0, Count: 1000}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(Order(bootrecord.Record{Ranges: c.read}, files), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestEveryPathComesBack(t *testing.T) {
	paths := []string{"usr/bin/sh", "a b", " leading", "trailing ", "new\nline", "\xe9t\xe9", "ünïcödé", `quo"te`, `"begins`, `back\slash`, "#no comment", "tab\t", "\u200b", "zero\u0085", "..a", "a/#b"}
	var text bytes.Buffer
	if err := (Profile{Comments: []string{"of an image", "two\nlines"}, Paths: paths}).Write(&text); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), "\n"); n != len(paths)+2 {
		t.Errorf("%d lines:\n%s", n, text.String())
	}
	got, err := Parse(text.String())
	if err != nil || !slices.Equal(got, paths) {
		t.Errorf("got %q, %v\nwant %q", got, err, paths)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want, fails string }{
		{"", "", ""},
		{"# a comment\n\n   \n/usr/bin/sh\r\n  /etc/passwd  ", "usr/bin/sh etc/passwd", ""},
		{"/a\n/b\n/a\n//a/./\n", "a b", ""},
		{"/a\nusr/bin/sh", "", `line 2: "usr/bin/sh" is no file`},
		{"/", "", "line 1"},
		{"/..", "", "line 1"},
		{"\"/a\\xZZ\"", "", "not quoted"},
		{"\"/a", "", "not quoted"},
		{"\"a\"", "", "is no file"},
		{"\x7fELF\x02\x01", "", "line 1"},
	} {
		got, err := Parse(c.text)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%q: %q, %v; want an error with %q", c.text, got, err, c.fails)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, %v; want %q", c.text, got, err, c.want)
		}
	}
}

// FuzzParse: what is read, Write writes so that it is read again as the same.
func FuzzParse(f *testing.F) {
	f.Add("# x\n/usr/bin/sh\n\"/new\\nline\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		paths, err := Parse(text)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := (Profile{Paths: paths}).Write(&out); err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(out.String()); err != nil || !slices.Equal(got, paths) {
			t.Errorf("%q came back as %q, %v", paths, got, err)
		}
	})
}
