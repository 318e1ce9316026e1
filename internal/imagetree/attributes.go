package imagetree

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/posixacl"
)

// What a squashfs can hold. mksquashfs ends at the first value beyond it, so
// everything is brought within on the way.
const (
	maxTime       = math.MaxUint32 // seconds since 1970
	maxID         = math.MaxUint32 - 1
	maxMinor      = 1<<20 - 1
	maxMajor      = 1<<12 - 1
	maxName       = 255      // in its directory, in bytes
	maxPath       = 64 << 10 // below the root, in bytes: a squashfs does not bound it
	maxDepth      = 4096     // directories and files in a path, likewise
	maxLink       = unix.PathMax - 1
	maxAttributes = 64 << 10 // names and values of one file, in bytes
	nobody        = 65534
)

// xattrNames are the classes of extended attributes a squashfs can hold.
var xattrNames = []string{"user.", "trusted.", "security."}

// paxXattr is how tar archives spell an extended attribute, and paxACL an access
// control list.
const (
	paxXattr      = "SCHILY.xattr."
	paxACL        = "SCHILY.acl.access"
	paxDefaultACL = "SCHILY.acl.default"
)

func clampTime(t time.Time) time.Time {
	return time.Unix(min(max(t.Unix(), 0), maxTime), 0)
}

// checkName says why an image cannot have a file of that name. What an archive names is
// asked about first: everything else costs more with each directory in it.
func checkName(name string) error {
	if len(name) > maxPath {
		return fmt.Errorf("its path has %d bytes", len(name))
	}
	if depth := strings.Count(name, "/") + 1; depth > maxDepth {
		return fmt.Errorf("its path has %d names", depth)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return fmt.Errorf("its name, or that of a directory it lies in, has %d bytes", len(part))
		}
	}
	return nil
}

// fit brings a header within what a squashfs holds and reports what it changed.
// The error says why the file cannot be held at all.
func (t *Tree) fit(name string, h *tar.Header) error {
	if err := checkName(name); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink && (h.Linkname == "" || len(h.Linkname) > maxLink) {
		return fmt.Errorf("it is a link to a path of %d bytes", len(h.Linkname))
	}
	device := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock
	if device && (h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor) {
		return fmt.Errorf("it is a device with the number %d:%d", h.Devmajor, h.Devminor)
	}
	if clamped := clampTime(h.ModTime); clamped.Unix() != h.ModTime.Unix() {
		t.Report.Changed(DateChanged, name, 0)
		h.ModTime = clamped
	} else {
		h.ModTime = clamped // without its fraction: package tar would round it up
	}
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	for _, id := range []*int{&h.Uid, &h.Gid} {
		if *id < 0 || *id > maxID {
			t.Report.Changed(OwnerChanged, name, 0)
			*id = nobody
		}
	}
	return nil
}

// setAttributes puts the extended attributes that an image can have into a header, and
// narrows its mode by the access control lists, which do not.
func (t *Tree) setAttributes(name string, h *tar.Header, a attributes) {
	narrowed := h.Mode
	switch {
	case a.badACL:
		narrowed &^= 0o77
	case a.acl != nil:
		narrowed = posixacl.Narrow(h.Mode, a.acl)
	}
	if narrowed != h.Mode || len(a.acl) > 3 {
		t.Report.Changed(ACLDropped, fmt.Sprintf("%s (mode %04o)", name, narrowed), 0)
		h.Mode = narrowed
	}
	if a.hasDefault {
		t.Report.Changed(ACLDropped, name+" (for new files in it)", 0)
	}
	for _, key := range a.failed {
		t.Report.Changed(AttributeDropped, fmt.Sprintf("%s: %q (cannot be read)", name, key), 0)
	}
	h.PAXRecords = nil
	var size int
	for _, key := range slices.Sorted(maps.Keys(a.values)) {
		value := a.values[key]
		size += len(key) + len(value)
		if !t.canHold(name, key) || size > maxAttributes {
			t.Report.Changed(AttributeDropped, fmt.Sprintf("%s: %q (%d bytes)", name, key, len(value)), int64(len(value)))
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[paxXattr+key] = value
	}
}

// canHold reports whether an image can have an extended attribute. Those of overlayfs
// would make the node's own overlay hide or move files.
func (t *Tree) canHold(name, key string) bool {
	for _, private := range []string{"trusted.overlay.", "user.overlay."} {
		if strings.HasPrefix(key, private) {
			return t.Rules.Keeps(name)
		}
	}
	// A pax record has a key without "=", and a squashfs a name of 16 bits.
	return !strings.ContainsAny(key, "=\x00") && slices.ContainsFunc(xattrNames, func(class string) bool {
		return strings.HasPrefix(key, class) && len(key) > len(class)
	})
}

// attributes is what a file has beside its header.
type attributes struct {
	values     map[string]string
	acl        []posixacl.Entry
	badACL     bool // there is a list, and it cannot be understood
	hasDefault bool
	failed     []string // names that could not be read
}

// readAttributes reads a file's extended attributes with llistxattr(2) and
// lgetxattr(2) or their like. buf has room for maxAttributes, the kernel's bound on
// a list and on a value.
func readAttributes(buf []byte, list func([]byte) (int, error), get func(string, []byte) (int, error)) (a attributes, err error) {
	n, err := list(buf)
	if errors.Is(err, unix.ENOTSUP) {
		return a, nil
	}
	if n <= 0 || err != nil {
		return a, err
	}
	for _, name := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		n, err := get(name, buf)
		switch {
		case errors.Is(err, unix.ENODATA): // it went away
		case err != nil:
			a.failed = append(a.failed, name)
		case name == posixacl.Xattr:
			a.acl, err = posixacl.Parse(buf[:n])
			a.badACL = err != nil
		case name == posixacl.DefaultXattr:
			a.hasDefault = true
		default:
			if a.values == nil {
				a.values = make(map[string]string)
			}
			a.values[name] = string(buf[:n])
		}
	}
	return a, nil
}

// paxAttributes reads them from the records of a tar member.
func paxAttributes(records map[string]string) (a attributes) {
	a.values = make(map[string]string)
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxXattr)
		var err error
		switch {
		case key == paxACL && value != "":
			a.acl, err = posixacl.ParseText(value)
		case key == paxDefaultACL:
			a.hasDefault = value != ""
		case ok && name == posixacl.Xattr:
			a.acl, err = posixacl.Parse([]byte(value))
		case ok && name == posixacl.DefaultXattr:
			a.hasDefault = true
		case ok:
			a.values[name] = value
		}
		a.badACL = a.badACL || err != nil
	}
	return a
}

// procPath names an entry of an open directory by a path that is short and
// cannot be led elsewhere, however deep the directory lies.
func procPath(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}
