package bootwork

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// installed is when the packages of the fixture were built, updated when they were
// installed, and later when nothing was done any more.
var (
	installed = time.Unix(1e9, 0)
	updated   = installed.Add(time.Hour)
	later     = updated.Add(time.Hour)
)

// system is a systemd whose work is done: what is in it, by name; what begins with
// "->" is a link.
func system() map[string]string {
	return map[string]string{
		"usr/lib/systemd/system/ldconfig.service":                       "[Unit]\nConditionNeedsUpdate=|/etc\nConditionFileNotEmpty=|!/etc/ld.so.cache\n",
		"usr/lib/systemd/system/systemd-hwdb-update.service":            "[Unit]\nConditionNeedsUpdate = /etc/\n",
		"usr/lib/systemd/system/systemd-sysusers.service":               "[Unit]\nConditionNeedsUpdate=|/etc\n",
		"usr/lib/systemd/system/systemd-journal-catalog-update.service": "[Unit]\nConditionNeedsUpdate=/var\n",
		"usr/lib/systemd/system/systemd-update-done.service":            "[Unit]\nConditionNeedsUpdate=|/etc\nConditionNeedsUpdate=|/var\n",
		"usr/lib/systemd/system/ssh.service":                            "[Unit]\nDescription=SSH\n",
		"lib":                                                           "->usr/lib",
		"etc/ld.so.conf":                                                "# comment\ninclude ld.so.conf.d/*.conf\n",
		"etc/ld.so.conf.d/local.conf":                                   "/usr/local/lib # ours\n",
		"usr/lib/libscript.so":                                          "INPUT(libx.so)",
		"usr/lib/udev/hwdb.d/20-usb.hwdb":                               "usb:*\n",
		"usr/lib/udev/hwdb.bin":                                         "compiled",
		"usr/lib/systemd/catalog/s.catalog":                             "-- 1\n",
		"var/lib/systemd/catalog/database":                              "compiled",
		"usr/lib/sysusers.d/basic.conf":                                 "# users\nu root 0 - /root\ng tty 5\nu! sync 4:65534 -\nm sync tty\nr - 500-900\n\n",
		"etc/passwd":                                                    "root:x:0:0:root:/root:/bin/sh\nsync:x:4:65534::/bin:/bin/sync\n",
		"etc/group":                                                     "root:x:0:\ntty:x:5:x,sync\nnogroup:x:65534:\n",
		"usr/lib/systemd/system/none.service":                           "->/dev/null",
	}
}

// lay writes the files, with a library and what the host's own ldconfig makes of it.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		p := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if link, ok := strings.CutPrefix(content, "->"); ok && err == nil {
			err = os.Symlink(link, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	addLibrary(t, root, "usr/lib", "libdl.so.2")
	ldconfig(t, root)
	return root
}

// addLibrary puts a library of this machine into a tree.
func addLibrary(t *testing.T, root, dir, name string) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/" + name)
	if len(found) == 0 {
		found = []string{"/usr/lib64/" + name}
	}
	data, err := os.ReadFile(found[0])
	if err == nil {
		err = os.MkdirAll(filepath.Join(root, dir), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(root, dir, name), data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ldconfig makes a tree's cache. It changes its root, for which an ordinary user has to
// be root of a user namespace.
func ldconfig(t *testing.T, root string) {
	t.Helper()
	cmd := exec.Command("/sbin/ldconfig", "-X", "-r", root)
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{HostID: uid, Size: 1}}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ldconfig: %v: %s", err, out)
	}
}

// setTimes gives all of a tree the time when it was updated, and a file here and
// there another.
func setTimes(t *testing.T, root string, times map[string]time.Time) {
	t.Helper()
	set := func(name string, to time.Time) {
		if err := os.Chtimes(name, to, to); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink == 0 {
			set(name, updated)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range times {
		set(filepath.Join(root, name), to)
	}
}

type testCase struct {
	files  map[string]string        // beside those of system(); "" takes one away
	change func(*testing.T, string) // of the tree
	times  map[string]time.Time     // of files, by name; others have updated
	keep   []string
	stamps string // the directories that are stamped
	note   string // words of the only sentence; "" for none
}

const units = "usr/lib/systemd/system/"

func cases() map[string]testCase {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			if err := os.Remove(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	console := map[string]string{"etc/systemd/system/multi-user.target.wants/console-setup.service": "->/lib/systemd/system/console-setup.service",
		"etc/default/keyboard": "XKBLAYOUT=us\n", "etc/default/console-setup": "CHARMAP=UTF-8\n", "etc/console-setup/cached_setup_terminal.sh": "#!/bin/sh\n"}
	return map[string]testCase{
		"all is done":                     {stamps: "etc var"},
		"no systemd":                      {files: map[string]string{units + "ldconfig.service": "", units + "systemd-hwdb-update.service": "", units + "systemd-sysusers.service": "", units + "systemd-journal-catalog-update.service": "", units + "systemd-update-done.service": ""}},
		"Debian 12":                       {files: map[string]string{units + "ldconfig.service": "", units + "systemd-hwdb-update.service": "", units + "systemd-journal-catalog-update.service": "", units + "systemd-update-done.service": ""}, stamps: "etc"},
		"not asked for":                   {keep: []string{"/etc/.updated", "var/.upd*"}},
		"one asked for":                   {keep: []string{"/var/.updated"}, stamps: "etc"},
		"a unit of others":                {files: map[string]string{units + "fonts.service": "[Unit]\nConditionNeedsUpdate=/etc\n"}, stamps: "var", note: "fonts.service is not known"},
		"of the administrator":            {files: map[string]string{"etc/systemd/system/fonts.service": "[Unit]\nAssertNeedsUpdate=|/var\n"}, stamps: "etc", note: "fonts.service is not known"},
		"in a drop-in":                    {files: map[string]string{"etc/systemd/system/ssh.service.d/x.conf": "[Unit]\nConditionNeedsUpdate=/etc\n"}, stamps: "var", note: "ssh.service is not known"},
		"a unit that was taken away":      {files: map[string]string{units + "fonts.service": "[Unit]\nConditionNeedsUpdate=/etc\n", "etc/systemd/system/fonts.service": "->/dev/null"}, stamps: "etc var"},
		"a unit when nothing was updated": {files: map[string]string{units + "fonts.service": "[Unit]\nConditionNeedsUpdate=!/etc\n"}, stamps: "etc var"},

		"no cache of libraries":        {change: remove("etc/ld.so.cache"), stamps: "var", note: "there is no /etc/ld.so.cache"},
		"a library since":              {change: func(t *testing.T, root string) { addLibrary(t, root, "usr/local/lib", "libutil.so.1") }, stamps: "var", note: "lacks /usr/local/lib/libutil.so.1"},
		"a library where none is read": {change: func(t *testing.T, root string) { addLibrary(t, root, "opt/lib", "libutil.so.1") }, stamps: "etc var"},
		"a library of an arm64 machine": {change: func(t *testing.T, root string) {
			addLibrary(t, root, "usr/local/lib", "libutil.so.1")
			f, err := os.OpenFile(filepath.Join(root, "usr/local/lib/libutil.so.1"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{byte(elf.EM_AARCH64)}, 18); err != nil {
				t.Fatal(err)
			}
		}, stamps: "etc var"},
		"a library is gone": {change: remove("usr/lib/libdl.so.2"), stamps: "var", note: "has /lib/libdl.so.2, which does not exist"},
		"half a cache": {change: func(t *testing.T, root string) {
			if err := os.Truncate(filepath.Join(root, "etc/ld.so.cache"), 60); err != nil {
				t.Fatal(err)
			}
		}, stamps: "var", note: "cannot be read: it is not one of glibc"},
		"a directory of libraries changed": {times: map[string]time.Time{"usr/lib": later, "usr/lib/libdl.so.2": later}, stamps: "etc var"},

		"no hardware database":       {files: map[string]string{"usr/lib/udev/hwdb.bin": ""}, stamps: "var", note: "there is no /etc/udev/hwdb.bin"},
		"hardware since":             {times: map[string]time.Time{"usr/lib/udev/hwdb.d/20-usb.hwdb": later}, stamps: "var", note: "/usr/lib/udev/hwdb.bin is older than /usr/lib/udev/hwdb.d/20-usb.hwdb"},
		"hardware added":             {times: map[string]time.Time{"usr/lib/udev/hwdb.d": later}, stamps: "var", note: "is older than /usr/lib/udev/hwdb.d"},
		"the administrator's":        {files: map[string]string{"etc/udev/hwdb.bin": "compiled"}, times: map[string]time.Time{"usr/lib/udev/hwdb.bin": installed}, stamps: "etc var"},
		"the administrator's is old": {files: map[string]string{"etc/udev/hwdb.bin": "compiled"}, times: map[string]time.Time{"etc/udev/hwdb.bin": installed}, stamps: "var", note: "/etc/udev/hwdb.bin is older"},

		"no catalog":     {files: map[string]string{"var/lib/systemd/catalog/database": ""}, stamps: "etc", note: "there is no /var/lib/systemd/catalog/database"},
		"messages since": {times: map[string]time.Time{"usr/lib/systemd/catalog/s.catalog": later}, stamps: "etc", note: "database is older than /usr/lib/systemd/catalog/s.catalog"},

		"a user is missing":      {files: map[string]string{"etc/sysusers.d/a.conf": "u anna"}, stamps: "var", note: "there is no user anna of /etc/sysusers.d/a.conf"},
		"users of two files":     {files: map[string]string{"etc/sysusers.d/b.conf": "u bert", "usr/lib/sysusers.d/a.conf": "u anna", "etc/sysusers.d/c.conf": "u carl", "etc/sysusers.d/d.conf": "u dora"}, stamps: "var", note: "there is no user bert of /etc/sysusers.d/b.conf"},
		"a user without a group": {files: map[string]string{"etc/sysusers.d/a.conf": "u sync 4"}, stamps: "var", note: "no user sync"},
		"a group is missing":     {files: map[string]string{"etc/sysusers.d/a.conf": "g anna -"}, stamps: "var", note: "no group anna"},
		"a member is missing":    {files: map[string]string{"etc/sysusers.d/a.conf": "m root tty"}, stamps: "var", note: "no member root of group tty"},
		"a line of the future":   {files: map[string]string{"etc/sysusers.d/a.conf": "q x y"}, stamps: "var", note: "no line q x y"},
		"users taken away":       {files: map[string]string{"usr/lib/sysusers.d/a.conf": "u anna", "etc/sysusers.d/a.conf": "->/dev/null"}, stamps: "etc var"},
		"no accounts":            {files: map[string]string{"etc/passwd": ""}, stamps: "var", note: "no user root"},

		"the source's own stamp": {files: map[string]string{"etc/.updated": "own"}, change: remove("etc/ld.so.cache"), stamps: "var"},
		"a stamp that is old":    {files: map[string]string{"etc/.updated": "own"}, times: map[string]time.Time{"etc/.updated": installed}, stamps: "etc var"},
		"no file at all":         {files: map[string]string{"etc/.updated/x": "own"}, times: map[string]time.Time{"etc/.updated": installed}, stamps: "var"},
		"old, and with reason":   {files: map[string]string{"etc/.updated": "own"}, change: remove("etc/ld.so.cache"), times: map[string]time.Time{"etc/.updated": installed}, stamps: "var", note: "ld.so.cache"},

		"AppArmor, nothing compiled": {files: map[string]string{"etc/systemd/system/sysinit.target.wants/apparmor.service": "->/lib/systemd/system/apparmor.service", "etc/apparmor.d/a": "profile a {}", "etc/apparmor.d/b": "profile b {}", "etc/apparmor.d/abi/3.0": ""}, stamps: "etc var", note: "compiles 2 of 2 AppArmor profiles"},
		"AppArmor, switched off":     {files: map[string]string{"etc/apparmor.d/a": "profile a {}"}, stamps: "etc var"},
		"AppArmor, all compiled":     {files: map[string]string{"etc/systemd/system/sysinit.target.wants/apparmor.service": "->/lib/systemd/system/apparmor.service", "etc/apparmor.d/a": "profile a {}", "var/cache/apparmor/26b63962.0/a": "bytes"}, stamps: "etc var"},
		"console, all of one age":    {files: console, stamps: "etc var", note: "cached_setup_terminal.sh is not newer than /etc/default/"},
		"console, done":              {files: console, times: map[string]time.Time{"etc/console-setup/cached_setup_terminal.sh": later}, stamps: "etc var"},
		"console, one changed":       {files: console, times: map[string]time.Time{"etc/console-setup/cached_setup_terminal.sh": later, "etc/default/keyboard": later}, stamps: "etc var", note: "newer than /etc/default/keyboard"},
		"AppArmor, one changed": {files: map[string]string{"etc/systemd/system/sysinit.target.wants/apparmor.service": "->/lib/systemd/system/apparmor.service", "etc/apparmor.d/a": "profile a {}", "etc/apparmor.d/b": "profile b {}", "var/cache/apparmor/26b63962.0/a": "bytes", "var/cache/apparmor/26b63962.0/b": "bytes"},
			times: map[string]time.Time{"etc/apparmor.d/b": later}, stamps: "etc var", note: "compiles 1 of 2"},
	}
}

func TestStamp(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			files := system()
			maps.Copy(files, c.files)
			maps.DeleteFunc(files, func(_, content string) bool { return content == "" })
			root := lay(t, files)
			if c.change != nil {
				c.change(t, root)
			}
			setTimes(t, root, c.times)
			archive := filepath.Join(t.TempDir(), "t.tar")
			testlinux.Run(t, "tar", "-C", root, "-cf", archive, ".")
			for _, source := range []string{root, archive} {
				tree, err := imagetree.Scan(t.Context(), source, &exclude.Choice{Keep: c.keep})
				if err != nil {
					t.Fatal(err)
				}
				defer tree.Close()
				c.check(t, tree, Stamp(tree))
			}
		})
	}
}

func (c testCase) check(t *testing.T, tree *imagetree.Tree, notes []string) {
	t.Helper()
	var made []string
	for _, dir := range stamped {
		data, err := tree.ReadFile(dir + "/.updated")
		if err != nil || string(data) == "own" {
			continue
		}
		made = append(made, dir)
		fi, err := tree.Stat(dir + "/.updated")
		if err != nil || !fi.ModTime().Equal(updated) || !strings.Contains(string(data), fmt.Sprintf("\nTIMESTAMP_NSEC=%d\n", updated.UnixNano())) {
			t.Errorf("/%s/.updated is of %v and says %q, %v; /usr is of %v", dir, fi.ModTime(), data, err, updated)
		}
	}
	if got := strings.Join(made, " "); got != c.stamps {
		t.Errorf("stamped: %q, want %q", got, c.stamps)
	}
	said := strings.Join(tree.Report.Lines(), "\n")
	if shown := strings.Contains(said, "added, so that systemd"); shown != (c.stamps != "") {
		t.Errorf("the report says\n%s", said)
	}
	if text := strings.Join(notes, "\n"); !strings.Contains(text, c.note) || (text == "") != (c.note == "") || len(notes) > 1 {
		t.Errorf("notes %q, want one with %q", notes, c.note)
	}
}

// A cache that the host's ldconfig wrote is read as its own -p reads it.
func TestCacheOfThisMachine(t *testing.T) {
	data, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseCache(data)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, l := range list {
		fmt.Fprintf(&got, "%s %s\n", l.name, l.path)
	}
	var want strings.Builder
	for line := range strings.Lines(testlinux.Run(t, "/sbin/ldconfig", "-p")) {
		if entry, path, ok := strings.Cut(strings.TrimSpace(line), " => "); ok {
			fmt.Fprintf(&want, "%s %s\n", strings.Fields(entry)[0], path)
		}
	}
	if got.String() != want.String() || got.Len() == 0 {
		t.Errorf("read\n%s\nldconfig -p says\n%s", got.String(), want.String())
	}
}

func FuzzParseCache(f *testing.F) {
	one := make([]byte, cacheHeader+cacheEntry)
	copy(one, cacheMagic)
	one[cacheCountAt] = 1
	one[cacheHeader+cacheNameAt], one[cacheHeader+cachePathAt] = byte(len(one)), byte(len(one)+len("libx.so.1\x00"))
	one = append(one, "libx.so.1\x00/lib/libx.so.1\x00"...)
	if list, err := parseCache(one); err != nil || !slices.Equal(list, []library{{"libx.so.1", "/lib/libx.so.1"}}) {
		f.Fatalf("a cache of one library is %v, %v", list, err)
	}
	f.Add(one)
	f.Add(one[:60])
	f.Add([]byte("ld.so-1.7.0 " + cacheMagic + strings.Repeat("\xff", 60)))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseCache(data)
		if len(list)*cacheEntry > len(data) || err != nil && list != nil {
			t.Errorf("%d entries of %d bytes, %v", len(list), len(data), err)
		}
	})
}
