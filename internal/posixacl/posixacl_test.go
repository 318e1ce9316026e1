package posixacl

import (
	"slices"
	"testing"
)

// TestNarrow holds the mode that is left of an access control list against the
// rights that the list gave.
func TestNarrow(t *testing.T) {
	for _, c := range []struct {
		name string
		mode int64 // as stat(2) gives it: the group's bits are the mask
		acl  string
		want int64
	}{
		{"no more than a mode", 0o644, "user::rw-,group::r--,other::r--", 0o644},
		{"the mask is no right of the group", 0o660, "user::rw-,user:33:rw-,group::---,mask::rw-,other::---", 0o600},
		{"the mask takes from the group", 0o640, "user::rw-,group::rw-,mask::r--,other::---", 0o640},
		{"who is named may more", 0o775, "user::rwx,group::r-x,group:4:rwx,mask::rwx,other::r-x", 0o755},
		{"who is named may nothing", 0o755, "user::rwx,user:33:---,group::r-x,mask::r-x,other::r-x", 0o700},
		{"a group that may nothing", 0o755, "user::rwx,group::r-x,group:4:---,mask::r-x,other::r-x", 0o750},
		{"the mask takes from who is named", 0o744, "user::rwx,user:33:rwx,group::rwx,mask::r--,other::r--", 0o744},
		{"special bits stay", 0o6770, "user::rwx\nuser:anna:rwx:1000\ngroup::--- # none\nmask::rwx\nother::---", 0o6700},
	} {
		list, err := ParseText(c.acl)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := Narrow(c.mode, list); got != c.want {
			t.Errorf("%s: %04o, want %04o", c.name, got, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	kernels := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x21\x00\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")
	got, err := Parse(kernels)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := ParseText("user::rw-,user:33:rw-,group::r--,mask::rw-,other::r--"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, the text says %v, %v", got, want, err)
	}
	for _, bad := range []string{"", "\x01\x00\x00\x00", "\x02\x00\x00\x00\x01"} {
		if got, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
	for _, bad := range []string{"user", "everyone::rwx", "::"} {
		if got, err := ParseText(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// FuzzList holds any list against the invariant: nobody gains a right.
func FuzzList(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff"), int64(0o664))
	f.Add([]byte("user::rw-,user:33:rw-,group::r--,mask::rw-,other::r--"), int64(0o664))
	f.Fuzz(func(t *testing.T, data []byte, mode int64) {
		mode &= 0o7777
		list, err := Parse(data)
		if err != nil {
			if list, err = ParseText(string(data)); err != nil {
				return
			}
		}
		if got := Narrow(mode, list); got&^mode != 0 || (got^mode)&^0o77 != 0 {
			t.Errorf("%04o became %04o by %v", mode, got, list)
		}
	})
}
