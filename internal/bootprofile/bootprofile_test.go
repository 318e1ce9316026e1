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

func extent(offset, length int64) squashmap.Extent {
	return squashmap.Extent{Offset: offset, Length: length}
}

func TestOrderIsThatOfTheReads(t *testing.T) {
	files := []squashmap.File{
		{Path: "large", Blocks: extent(96, 10*u), Fragment: extent(20*u+1, 500)},
		{Path: "page", Blocks: extent(96+10*u, 200)},
		{Path: "next", Blocks: extent(96+10*u+200, u)},
		{Path: "small", Fragment: extent(20*u+1, 500)},
		{Path: "same", Blocks: extent(96, 10*u)},
		{Path: "far", Blocks: extent(100*u, 1)},
	}
	for _, c := range []struct {
		name string
		want string
		read []bootrecord.Range
	}{
		{"nothing", "", nil},
		{"no file", "", []bootrecord.Range{{Start: 50, Count: 3}, {Start: 101, Count: 1}}},
		{"a part of one, and its equal", "large same", []bootrecord.Range{{Start: 3, Count: 1}}},
		{"several in a page", "large same page next", []bootrecord.Range{{Start: 10, Count: 1}}},
		{"in the order of the reads", "far large same page next small", []bootrecord.Range{{Start: 100, Count: 1}, {Start: 10, Count: 2}, {Start: 20, Count: 1}}},
		{"all that share a block", "large small", []bootrecord.Range{{Start: 20, Count: 1}}},
		{"all", "large same page next small far", []bootrecord.Range{{Start: 0, Count: 1000}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(Order(bootrecord.Record{Ranges: c.read}, files), " ")
			if got != c.want {
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
