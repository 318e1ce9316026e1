package rootfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// carrying makes files each of which carries something that an image has to have,
// too. It returns what of it an image has otherwise (docs/images.md): by name, a part of its
// description and what stands there in an image, "" for no file at all.
func carrying(t *testing.T, root string) (otherwise map[string][2]string) {
	t.Helper()
	file := func(name, data string) string {
		name = filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(data), 0o644))
		return name
	}
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755, "none": 0, "sticky": 0o1777, "all": 0o7777} {
		check(t, unix.Chmod(file("mode/"+name, name), mode))
	}
	check(t, unix.Chmod(filepath.Dir(file("dir-setgid/f", "")), 0o3771))
	for name, id := range map[string]int{"65534": 65534, "65536": 65536, "2^31": 1 << 31, "last": 1<<32 - 2} {
		check(t, os.Chown(file("owner/"+name, name), id, id-1))
	}
	for name, seconds := range map[string]int64{"1970": 0, "one": 1, "2038": 1<<31 - 1, "2039": 1 << 31, "2106": 1<<32 - 1, "fraction": 1e9} {
		check(t, os.Chtimes(file("date/"+name, name), time.Unix(seconds, 5e8), time.Unix(seconds, 5e8)))
	}
	check(t, os.Chtimes(file("date/1969", ""), time.Unix(-1, 0), time.Unix(-1, 0)), os.Chtimes(file("date/2107", ""), time.Unix(1<<32, 0), time.Unix(1<<32, 0)))
	for name, size := range map[string]int{"empty": 0, "byte": 1, "block": 128 << 10, "more": 128<<10 + 1, "large": 3<<20 + 7} {
		file("size/"+name, testlinux.Noise(size))
	}
	for _, name := range []string{"new\nline", "not UTF-8 \xff\xfe\x80", "tab\tand \x01", strings.Repeat("n", 255), strings.Repeat("\xc3\xa4", 127), " blank ", "*?[x]", `back\slash`, "quote'\"", "-rf", "end."} {
		file("name/"+name, name)
		check(t, os.Symlink(name, filepath.Join(root, "name", "to "+fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:8])))
	}
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 15)
	file("deep/"+deep+"f", "of a long path")
	for _, name := range []string{"a/first", "b/second", "z/third"} {
		file("links/"+name, "")
		check(t, os.Remove(filepath.Join(root, "links", name)), os.Link(file("links/m", "one file"), filepath.Join(root, "links", name)))
	}
	check(t, os.Symlink("/", filepath.Join(root, "links/root")), os.Symlink(strings.Repeat("x/", 2000), filepath.Join(root, "links/long")), os.Symlink("nowhere\n\xff", filepath.Join(root, "links/dangling")),
		os.Lchown(filepath.Join(root, "links/root"), 7, 8))
	for name, device := range map[string][2]uint32{"null": {1, 3}, "last": {4095, 1<<20 - 1}, "minor": {8, 300}} {
		check(t, os.MkdirAll(filepath.Join(root, "devices"), 0o755))
		check(t, unix.Mknod(filepath.Join(root, "devices", "char-"+name), unix.S_IFCHR|0o666, int(unix.Mkdev(device[0], device[1]))))
		check(t, unix.Mknod(filepath.Join(root, "devices", "block-"+name), unix.S_IFBLK|0o660, int(unix.Mkdev(device[0], device[1]))))
	}
	check(t, unix.Mkfifo(filepath.Join(root, "devices/queue"), 0o622), os.Link(filepath.Join(root, "devices/queue"), filepath.Join(root, "devices/same queue")))
	check(t, unix.Mknod(filepath.Join(root, "devices/socket"), unix.S_IFSOCK|0o755, 0))
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for name, attributes := range map[string]map[string]string{
		"capability": {"security.capability": capability}, "trusted": {"trusted.viver": "x"},
		"user": {"user.empty": "", "user.text": "line\nline", "user.bytes": "\x00\xff\x00", "user.long": testlinux.Noise(2000), "user.name with blanks": "y"},
	} {
		for key, value := range attributes {
			check(t, unix.Setxattr(file("attributes/"+name, name), key, []byte(value), 0))
		}
	}
	check(t, unix.Setxattr(filepath.Join(root, "attributes"), "trusted.of-a-directory", []byte("d"), 0))
	writeHoles(t, filepath.Join(root, "holes/begin"), hole{skip: 2 << 20}, hole{data: testlinux.Noise(4096)})
	writeHoles(t, filepath.Join(root, "holes/end"), hole{data: testlinux.Noise(4096), skip: 2<<20 + 1})
	writeHoles(t, filepath.Join(root, "holes/all"), hole{skip: 5 << 20})
	check(t, os.MkdirAll(filepath.Join(root, "empty/directory"), 0o700))
	return map[string][2]string{
		"date/1969": {"date -1", "date 0"}, "date/2107": {"date 4294967296", "date 4294967295"}, "devices/socket": {},
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// described says all that the files of a tree carry, by name.
func described(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	first := make(map[uint64]string) // names in the order of the walk
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path) // it lies below
		text := fmt.Sprintf("mode %o, owner %d:%d, date %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(", %d bytes, sum %.8x", st.Size, sha256.Sum256(data))
			if strings.HasPrefix(name, "holes/") {
				const block = 128 << 10 // of a squashfs, which has no smaller holes
				text += fmt.Sprintf(", %d blocks stored", (st.Blocks*512+block-1)/block)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(", to %q", target)
		case unix.S_IFCHR, unix.S_IFBLK:
			text += fmt.Sprintf(", device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if !d.IsDir() {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			text += fmt.Sprintf(", %d links, as %q", st.Nlink, first[st.Ino])
		}
		attributes, err := attributesOf(path)
		all[name] = text + attributes
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func attributesOf(path string) (text string, err error) {
	var names, value [64 << 10]byte
	n, err := unix.Llistxattr(path, names[:])
	if err != nil || n <= 0 {
		return "", err
	}
	list := strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00")
	for _, key := range slices.Sorted(slices.Values(list)) {
		n, err := unix.Lgetxattr(path, key, value[:])
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(", %s=%x", key, value[:n])
	}
	return text, nil
}

// TestWhatAFileCarries is in the image: a tree with all of it becomes a squashfs, by way of
// a directory and of an archive, and what unsquashfs(1) makes of that is compared with it.
func TestWhatAFileCarries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away, and make devices")
	}
	testlinux.Tool(t, "mksquashfs")
	root := filepath.Join(t.TempDir(), "root")
	check(t, os.Mkdir(root, 0o751))
	otherwise := carrying(t, root)
	want := described(t, root)
	for name, o := range otherwise {
		if !strings.Contains(want[name], o[0]) {
			t.Fatalf("%s: %s, without %q", name, want[name], o[0])
		}
		if want[name] = strings.Replace(want[name], o[0], o[1], 1); o[1] == "" {
			delete(want, name)
		}
	}
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*", "-C", root, "-cf", archive, ".")
	for _, source := range []string{root, archive} {
		t.Run(filepath.Base(source), func(t *testing.T) {
			tree, err := imagetree.Scan(t.Context(), source, &exclude.Choice{})
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			out, back := filepath.Join(t.TempDir(), "squashfs"), filepath.Join(t.TempDir(), "back")
			if err := Write(t.Context(), tree, out, Options{Level: 1}, ignore); err != nil {
				t.Fatal(err)
			}
			testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-d", back, out)
			got := described(t, back)
			if source == archive { // GNU tar writes each name of a queue as a file of its own
				delete(want, "devices/queue")
				delete(want, "devices/same queue")
				maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasSuffix(name, "queue") })
			}
			for _, name := range slices.Sorted(maps.Keys(want)) {
				if name != "." && got[name] != want[name] {
					t.Errorf("%q\nhas   %.300s\nwants %.300s", name, got[name], want[name])
				}
			}
			for name := range got {
				if want[name] == "" {
					t.Errorf("%q: not in the source", name)
				}
			}
			if report := reported(tree); !strings.Contains(report, "/date/1969, /date/2107") {
				t.Errorf("reported: %s", report)
			}
		})
	}
}
