package handover

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine"
)

// Descriptors that outlive the exec of the new root's init.
const (
	toDaemon = 100 + iota
	fromDaemon
	oldRoot
)

// TestNetnsHandover is a whole handover with the kernel's own mounts: a tmpfs
// plays the initramfs, an overlay is the new root. This test's binary plays all the
// parts: the boot, the storage daemon that stays behind in a mount namespace of
// its own, and the distribution's init, which judges.
//
//	boot ── forks ──> daemon (own mounts on /dev… and /store)
//	  └── Run ──> init: sees the mounts, no initramfs; asks the daemon for a sign of life
func TestNetnsHandover(t *testing.T) {
	switch os.Getenv("VIVER_TEST_PART") {
	case "boot":
		playBoot(t)
		return
	case "daemon":
		playDaemon()
		return
	case "init":
		playInit()
		return
	}
	cmd := part("/proc/self/exe", "boot")
	cmd.Env = append(cmd.Env, "VIVER_TEST_DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this machine does not allow user namespaces")
	}
	if err != nil || !strings.Contains(string(out), "INIT: all is well") {
		t.Errorf("%v\n%s", err, out)
	}
}

func part(path, role string) *exec.Cmd {
	cmd := exec.Command(path, "-test.run=^TestNetnsHandover$", "-test.v")
	cmd.Env = []string{"VIVER_TEST_PART=" + role, "PATH=/bin"}
	return cmd
}

func playBoot(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := os.Getenv("VIVER_TEST_DIR")
	self, err := os.ReadFile("/proc/self/exe")
	must(err)
	must(unix.Mount("initramfs", dir, "tmpfs", 0, ""))
	for _, name := range append(Mounts(), "/bbin", "/lib/modules", "/newroot", "/store", "/layers") {
		must(os.MkdirAll(dir+name, 0o755))
	}
	for _, name := range Mounts() {
		must(unix.Mount("kernel", dir+name, "tmpfs", 0, ""))
		must(os.WriteFile(dir+name+"/sign", nil, 0o644))
	}
	must(os.WriteFile(dir+"/bbin/vfield", self, 0o755))
	must(os.WriteFile(dir+"/lib/modules/big.ko", make([]byte, 1<<20), 0o644))
	must(unix.Mount("layers", dir+"/layers", "tmpfs", 0, ""))
	for _, name := range []string{"lower", "upper", "work"} {
		must(os.Mkdir(dir+"/layers/"+name, 0o755))
	}
	layers := strings.ReplaceAll("lowerdir=D/lower,upperdir=D/upper,workdir=D/work", "D", dir+"/layers")
	must(unix.Mount("root", dir+"/newroot", "overlay", unix.MS_NOEXEC, layers))
	must(os.Mkdir(dir+"/newroot/sbin", 0o755))
	must(os.WriteFile(dir+"/newroot/sbin/init", self, 0o755))
	must(unix.Chroot(dir))
	must(os.Chdir("/"))

	daemon := part("/bbin/vfield", "daemon")
	daemon.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	to, err := daemon.StdinPipe()
	must(err)
	from, err := daemon.StdoutPipe()
	must(err)
	daemon.Stderr = os.Stderr
	must(daemon.Start())
	if line, err := waitFor(from.(*os.File), "DAEMON: "); err != nil || line != "ready" {
		t.Fatalf("the daemon says %q, %v", line, err)
	}
	root, err := os.Open("/")
	must(err)
	must(unix.Dup2(int(to.(interface{ Fd() uintptr }).Fd()), toDaemon))
	must(unix.Dup2(int(from.(*os.File).Fd()), fromDaemon))
	must(unix.Dup2(int(root.Fd()), oldRoot))

	c := Config{Root: "/newroot", Args: daemon.Args[1:], Env: []string{"VIVER_TEST_PART=init"}}
	// The first attempt fails at the very last step: nothing may be executed
	// in the new root. Everything must be as it was, so that a person can help.
	if err := Run(machine.Host{}, c); !errors.Is(err, unix.EACCES) {
		t.Fatalf("handover to a root mounted noexec: %v", err)
	}
	for _, path := range []string{"/dev/sign", "/proc/sign", "/sys/sign", "/run/sign", "/bbin/vfield", "/newroot/sbin/init"} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("after a failed handover: %v", err)
		}
	}
	if t.Failed() {
		return
	}
	must(unix.Mount("", "/newroot", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	t.Fatal(Run(machine.Host{}, c))
}

// playDaemon mounts its store where only its own namespace sees it, and later
// says whether its world is still there.
func playDaemon() {
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("store", "/store", "tmpfs", 0, ""),
		os.WriteFile("/store/pieces", []byte("pieces"), 0o600),
	)
	if err != nil {
		fmt.Println("DAEMON:", err)
		return
	}
	fmt.Println("DAEMON: ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	for _, path := range []string{"/dev/sign", "/proc/sign", "/sys/sign", "/run/sign", "/store/pieces", "/bbin/vfield"} {
		if _, e := os.Stat(path); e != nil {
			err = errors.Join(err, e)
		}
	}
	if err == nil {
		again := exec.Command("/bbin/vfield", "-test.run=^$") // it can be restarted
		again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stderr, os.Stderr
		err = again.Run()
	}
	fmt.Println("DAEMON:", err)
}

// playInit is the judge, in the new root.
func playInit() {
	var errs []error
	for _, path := range []string{"/dev/sign", "/proc/sign", "/sys/sign", "/run/sign", "/sbin/init"} {
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, err)
		}
	}
	if _, err := os.Stat("/bbin"); err == nil {
		errs = append(errs, errors.New("the initramfs is still in sight"))
	}
	for path, kept := range map[string]bool{"lib/modules/big.ko": false, "lib/modules": true, "bbin/vfield": true, "newroot": true} {
		var st unix.Stat_t
		if err := unix.Fstatat(oldRoot, path, &st, 0); (err == nil) != kept {
			errs = append(errs, fmt.Errorf("%s in the initramfs: %v, should be kept: %v", path, err, kept))
		}
	}
	if _, err := unix.Write(toDaemon, []byte("well?\n")); err != nil {
		errs = append(errs, err)
	}
	if line, err := waitFor(os.NewFile(fromDaemon, "daemon"), "DAEMON: "); err != nil || line != "<nil>" {
		errs = append(errs, fmt.Errorf("the daemon says %q, %v", line, err))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Println("INIT:", err)
		return
	}
	fmt.Println("INIT: all is well")
}

// waitFor returns the rest of the first line that begins with prefix. It reads
// byte by byte, because another process reads on.
func waitFor(f *os.File, prefix string) (string, error) {
	var line []byte
	for {
		var b [1]byte
		if _, err := f.Read(b[:]); err != nil {
			return string(line), err
		}
		if b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		if rest, ok := strings.CutPrefix(string(line), prefix); ok {
			return rest, nil
		}
		line = nil
	}
}
