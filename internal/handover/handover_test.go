package handover

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine/machinetest"
)

// initramfs is a machine before the handover, with a new root in /newroot.
func initramfs(t *testing.T) *machinetest.Host {
	m := machinetest.New(t, map[string]string{
		"/bbin/vfield": "daemon", "/bin/sh": "-> ../bbin/gosh", "/init": "-> bbin/uinit", "/etc/resolv.conf": "",
		"/lib/modules/6.1/kernel/big.ko": strings.Repeat("x", 1000), "/lib/link": "-> modules", "/README": "xx",
		"/dev/console": "", "/medium/": "", "/newroot/": "",
	})
	program(t, m.Path("/newroot/sbin/init"), "#!/bin/sh\n")
	program(t, m.Path("/newroot/bin/sh"), "")
	return m
}

// static returns a static binary for this machine: this test's own, which has
// a dynamic linker only where it is built with cgo, for the race detector, and
// then loses the mention of it.
func static(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// The table of program headers (elf(5), 64 bit): its offset, the size of
	// an entry and their number.
	table, size := binary.LittleEndian.Uint64(data[32:]), uint64(binary.LittleEndian.Uint16(data[54:]))
	for n := range uint64(binary.LittleEndian.Uint16(data[56:])) {
		kind := data[table+n*size:][:4]
		if elf.ProgType(binary.LittleEndian.Uint32(kind)) == elf.PT_INTERP {
			binary.LittleEndian.PutUint32(kind, uint32(elf.PT_NULL))
		}
	}
	return data
}

// program writes an executable file; with no text, a static binary.
func program(t *testing.T, path, text string) {
	t.Helper()
	data := []byte(text)
	if text == "" {
		data = static(t)
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func paths(t *testing.T, dir string) []string {
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir)
		if err == nil && name != "" && !strings.HasPrefix(name, "/newroot/") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRun(t *testing.T) {
	m := initramfs(t)
	err := Run(m, Config{Old: m.Root, Root: m.Path("/newroot"), Args: []string{"single"}, Env: []string{"TERM=vt220", "container=lxc"},
		Detach: []string{"/medium"}, Keep: append(World(), "newroot")})
	if err != nil && !strings.HasPrefix(err.Error(), "hand over:") {
		t.Error(err)
	}
	want := []string{
		"unmount /medium 0x2",
		"mount /dev /newroot/dev  0x2000 ", "mount /proc /newroot/proc  0x2000 ", "mount /sys /newroot/sys  0x2000 ", "mount /run /newroot/run  0x2000 ",
		"chdir /newroot", "mount . /  0x2000 ", "chroot .", "chdir /",
		`exec /sbin/init ["/sbin/init" "single"] ["TERM=vt220" "HOME=/" "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]`,
	}
	calls := m.Calls()
	if len(calls) < len(want) || !slices.Equal(calls[:len(want)], want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
	left := []string{"/bbin", "/bbin/vfield", "/bin", "/bin/sh", "/dev", "/dev/console", "/etc", "/etc/resolv.conf", "/init",
		"/lib", "/lib/modules", "/lib/modules/6.1", "/lib/modules/6.1/kernel", "/medium", "/newroot"}
	if got := paths(t, m.Root); !slices.Equal(got, left) {
		t.Errorf("left in the initramfs:\n%q\nwant\n%q", got, left)
	}
}

func TestFailureLeavesTheInitramfsAsItWas(t *testing.T) {
	moves := []string{"mount /dev /newroot/dev  0x2000 ", "mount /proc /newroot/proc  0x2000 ", "mount /sys /newroot/sys  0x2000 ", "mount /run /newroot/run  0x2000 "}
	back := []string{"mount run /run  0x2000 ", "mount sys /sys  0x2000 ", "mount proc /proc  0x2000 ", "mount dev /dev  0x2000 "}
	home := []string{"fchdir ", "chroot ."}
	for name, tt := range map[string]struct {
		fail  string
		calls []string
		freed bool
	}{
		"third move": {"mount /sys", slices.Concat(moves[:3], []string{"fchdir /newroot"}, back[2:], []string{"chdir /"}), false},
		"onto /":     {"mount . / ", slices.Concat(moves, []string{"chdir /newroot", "mount . /  0x2000 ", "fchdir /newroot"}, back, []string{"chdir /"}), false},
		"exec": {"exec", slices.Concat(moves, []string{"chdir /newroot", "mount . /  0x2000 ", "chroot .", "chdir /", "exec"}, home,
			[]string{"fchdir /newroot"}, back, []string{"mount . /newroot  0x2000 ", "chdir /"}), true},
	} {
		t.Run(name, func(t *testing.T) {
			m := initramfs(t)
			m.Fail = func(call string) error {
				if strings.HasPrefix(call, tt.fail) {
					return unix.EIO
				}
				return nil
			}
			err := Run(m, Config{Old: m.Root, Root: m.Path("/newroot"), Keep: append(World(), "newroot")})
			if err == nil || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("error %v", err)
			}
			calls := m.Calls()
			for i, c := range calls {
				if strings.HasPrefix(c, "exec") {
					calls[i] = "exec"
				}
			}
			if !slices.Equal(calls, tt.calls) {
				t.Errorf("calls\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(tt.calls, "\n"))
			}
			_, err = os.Stat(m.Path("/README"))
			if freed := os.IsNotExist(err); freed != tt.freed {
				t.Errorf("initramfs freed: %v, want %v", freed, tt.freed)
			}
		})
	}
}

func TestRunChecksTheInitFirst(t *testing.T) {
	m := initramfs(t)
	err := Run(m, Config{Old: m.Root, Root: m.Path("/newroot"), Init: "/sbin/nosuch"})
	if err == nil || !strings.Contains(err.Error(), "/sbin/nosuch") || len(m.Calls()) != 0 {
		t.Errorf("error %v, calls %q", err, m.Calls())
	}
}

func TestFindInit(t *testing.T) {
	binary := static(t)
	foreign := slices.Clone(binary)
	foreign[18], foreign[19] = 0x16, 0 // e_machine: s390
	for name, tt := range map[string]struct {
		files    map[string]string // executable, unless the name ends in "-"
		links    map[string]string
		override string
		want     string
		err      string
	}{
		"static binary":      {files: map[string]string{"/sbin/init": string(binary)}, want: "/sbin/init"},
		"merged /usr":        {files: map[string]string{"/usr/lib/systemd/systemd": string(binary)}, links: map[string]string{"/sbin": "usr/sbin", "/lib": "usr/lib", "/usr/sbin/init": "/lib/systemd/systemd"}, want: "/sbin/init"},
		"link out of root":   {files: map[string]string{"/x/init": string(binary)}, links: map[string]string{"/sbin/init": "../../../../x/init"}, want: "/sbin/init"},
		"second place":       {files: map[string]string{"/bin/init": string(binary)}, want: "/bin/init"},
		"script":             {files: map[string]string{"/sbin/init": "#! /bin/busybox sh\n", "/bin/busybox": string(binary)}, want: "/sbin/init"},
		"override":           {files: map[string]string{"/sbin/init": string(binary), "/bin/bash": string(binary)}, override: "/bin/bash", want: "/bin/bash"},
		"override missing":   {files: map[string]string{"/sbin/init": string(binary)}, override: "/bin/bash", err: "/bin/bash: stat"},
		"nothing":            {err: "/sbin/init"},
		"not executable":     {files: map[string]string{"/sbin/init-": string(binary)}, links: map[string]string{"/sbin/init": "init-"}, err: "not executable (mode 0644)"},
		"no interpreter":     {files: map[string]string{"/sbin/init": "#!/bin/sh\n"}, err: "needs /bin/sh to run"},
		"empty":              {files: map[string]string{"/sbin/init": ""}, err: "too short"},
		"text":               {files: map[string]string{"/sbin/init": "hello world\n"}, err: `begins with "hell"`},
		"truncated":          {files: map[string]string{"/sbin/init": string(binary[:40])}, err: "damaged"},
		"foreign":            {files: map[string]string{"/sbin/init": string(foreign)}, err: "EM_S390"},
		"loop of links":      {links: map[string]string{"/sbin/init": "init"}, err: "too many levels of symbolic links"},
		"loop of scripts":    {files: map[string]string{"/sbin/init": "#!/sbin/init\n"}, err: "and so on"},
		"broken beats later": {files: map[string]string{"/sbin/init": "", "/bin/init": string(binary)}, err: "too short"},
	} {
		t.Run(name, func(t *testing.T) {
			m := machinetest.New(t, tt.files)
			for path := range tt.files {
				if strings.HasSuffix(path, "-") {
					continue
				}
				if err := os.Chmod(m.Path(path), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for path, target := range tt.links {
				m.Put(t, path, "-> "+target)
			}
			got, err := FindInit(m.Root, tt.override)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("FindInit = %q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestFindInitDynamic asks for what this machine's own dynamic binaries need.
func TestFindInitDynamic(t *testing.T) {
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Skipf("no shell here: %v", err)
	}
	if _, err := FindInit("/", sh); err != nil {
		t.Errorf("the shell that runs on this machine: %v", err)
	}
	data, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	program(t, filepath.Join(root, "sbin/init"), string(data))
	if _, err := FindInit(root, ""); err == nil || !strings.Contains(err.Error(), "ld-") {
		t.Errorf("the shell with no dynamic linker: %v", err)
	}
}

func TestSpare(t *testing.T) {
	run := t.TempDir()
	for _, pids := range [][]int{{7}, {123, 4567}} {
		if err := Spare(run, pids...); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(run, "sendsigs.omit.d/viver"))
	if err != nil || string(text) != "123\n4567\n" {
		t.Errorf("file holds %q, %v", text, err)
	}
	if names := paths(t, run); !slices.Equal(names, []string{"/sendsigs.omit.d", "/sendsigs.omit.d/viver"}) {
		t.Errorf("files: %q", names)
	}
}
