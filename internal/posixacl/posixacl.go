// Package posixacl reads POSIX access control lists (acl(5)), as the kernel and as
// tar archives have them, for those who can keep no more of a list than a mode.
//
// The invariant: nobody has a right by that mode that the list did not give.
package posixacl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Extended attributes that hold lists: of a file, and for new files in a directory.
const (
	Xattr        = "system.posix_acl_access"
	DefaultXattr = "system.posix_acl_default"
)

// Entry is one entry of a list.
type Entry struct {
	tag   uint16
	perms int64 // rwx, as in a mode
}

// Tags as the kernel stores them (linux/posix_acl.h).
const (
	userObj, user, groupObj, group, mask, other = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
)

// Parse reads a list as the kernel gives it (linux/posix_acl_xattr.h).
func Parse(b []byte) ([]Entry, error) {
	const version, headSize, entrySize = 2, 4, 8
	if len(b) < headSize || (len(b)-headSize)%entrySize != 0 || binary.LittleEndian.Uint32(b) != version {
		return nil, errors.New("not an access control list")
	}
	var list []Entry
	for b = b[headSize:]; len(b) > 0; b = b[entrySize:] {
		list = append(list, Entry{binary.LittleEndian.Uint16(b), int64(binary.LittleEndian.Uint16(b[2:]) & 7)})
	}
	return list, nil
}

// ParseText reads the text form of a tar archive: entries "tag:who:rwx" with
// commas or line feeds between them, each perhaps followed by an ID.
func ParseText(text string) ([]Entry, error) {
	var list []Entry
	for _, entry := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		entry, _, _ = strings.Cut(entry, "#")
		fields := strings.Split(strings.TrimSpace(entry), ":")
		if len(fields) == 2 { // "mask:rwx" and "other:r--"
			fields = []string{fields[0], "", fields[1]}
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("not an entry of an access control list: %q", entry)
		}
		named := fields[1] != ""
		var tag uint16
		switch {
		case fields[0] == "user" && named, fields[0] == "u" && named:
			tag = user
		case fields[0] == "user", fields[0] == "u":
			tag = userObj
		case fields[0] == "group" && named, fields[0] == "g" && named:
			tag = group
		case fields[0] == "group", fields[0] == "g":
			tag = groupObj
		case fields[0] == "mask", fields[0] == "m":
			tag = mask
		case fields[0] == "other", fields[0] == "o":
			tag = other
		default:
			return nil, fmt.Errorf("not an entry of an access control list: %q", entry)
		}
		var perms int64
		for i, c := range "rwx" {
			if strings.ContainsRune(fields[2], c) {
				perms |= 4 >> i
			}
		}
		list = append(list, Entry{tag, perms})
	}
	return list, nil
}

// Narrow returns the mode that stands for a list which is dropped: nobody has a
// right by it that the list did not give. The group's bits of a mode with a list
// are its mask. Users and groups that the list names fall back to the group's or
// the others' rights, which are therefore at most what each of the named had.
func Narrow(mode int64, list []Entry) int64 {
	most, ofGroup, ofOthers := int64(7), mode>>3&7, mode&7
	for _, e := range list {
		switch e.tag {
		case mask:
			most = e.perms
		case groupObj:
			ofGroup = e.perms
		case other:
			ofOthers = e.perms
		}
	}
	ofGroup &= most
	for _, e := range list {
		if e.tag == user {
			ofGroup &= e.perms & most
		}
		if e.tag == user || e.tag == group {
			ofOthers &= e.perms & most
		}
	}
	ofGroup &= mode >> 3 & 7
	ofOthers &= mode & 7
	return mode&^0o77 | ofGroup<<3 | ofOthers
}
