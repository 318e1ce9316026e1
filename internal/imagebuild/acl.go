package imagebuild

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Extended attributes with access control lists.
const (
	aclXattr        = "system.posix_acl_access"
	defaultACLXattr = "system.posix_acl_default"
)

// aclEntry is one entry of a POSIX access control list (acl(5)).
type aclEntry struct {
	tag   uint16
	perms int64
}

// Tags as the kernel stores them (linux/posix_acl.h).
const (
	aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
)

// parseACL reads a list as the kernel gives it (linux/posix_acl_xattr.h).
func parseACL(b []byte) ([]aclEntry, error) {
	const version, headSize, entrySize = 2, 4, 8
	if len(b) < headSize || (len(b)-headSize)%entrySize != 0 || binary.LittleEndian.Uint32(b) != version {
		return nil, errors.New("not an access control list")
	}
	var list []aclEntry
	for b = b[headSize:]; len(b) > 0; b = b[entrySize:] {
		list = append(list, aclEntry{binary.LittleEndian.Uint16(b), int64(binary.LittleEndian.Uint16(b[2:]) & 7)})
	}
	return list, nil
}

// parseACLText reads the text form of a tar archive: entries "tag:who:rwx" with
// commas or line feeds between them, each perhaps followed by an ID.
func parseACLText(text string) ([]aclEntry, error) {
	var list []aclEntry
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
			tag = aclUser
		case fields[0] == "user", fields[0] == "u":
			tag = aclUserObj
		case fields[0] == "group" && named, fields[0] == "g" && named:
			tag = aclGroup
		case fields[0] == "group", fields[0] == "g":
			tag = aclGroupObj
		case fields[0] == "mask", fields[0] == "m":
			tag = aclMask
		case fields[0] == "other", fields[0] == "o":
			tag = aclOther
		default:
			return nil, fmt.Errorf("not an entry of an access control list: %q", entry)
		}
		var perms int64
		for i, c := range "rwx" {
			if strings.ContainsRune(fields[2], c) {
				perms |= 4 >> i
			}
		}
		list = append(list, aclEntry{tag, perms})
	}
	return list, nil
}

// narrow returns the mode that stands for a list nobody can hold: nobody has a
// right by it that the list did not give. The group's bits of a mode with a list
// are its mask. Who is named falls back to the group or to the others, who
// therefore have at most what each of the named had.
func narrow(mode int64, list []aclEntry) int64 {
	mask, group, other := int64(7), mode>>3&7, mode&7
	for _, e := range list {
		switch e.tag {
		case aclMask:
			mask = e.perms
		case aclGroupObj:
			group = e.perms
		case aclOther:
			other = e.perms
		}
	}
	group &= mask
	for _, e := range list {
		if e.tag == aclUser {
			group &= e.perms & mask
		}
		if e.tag == aclUser || e.tag == aclGroup {
			other &= e.perms & mask
		}
	}
	group &= mode >> 3 & 7
	other &= mode & 7
	return mode&^0o77 | group<<3 | other
}
