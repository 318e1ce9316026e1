package harness

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownerEnv makes the test binary a process that owns a machine.
const ownerEnv = "VIVER_TEST_OWNER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		fmt.Println(own(dir))
		select {} // until killed
	}
	os.Exit(m.Run())
}

// own starts a machine and tells its process ID.
func own(dir string) string {
	lab, err := Open(context.Background(), dir, Options{})
	if err != nil {
		return err.Error()
	}
	vm, err := lab.Start(context.Background(), Config{Name: "orphan", Memory: 32})
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(vm.process.Pid)
}

// Whatever kills a test, its machines go with it.
func TestMachineDiesWithItsOwner(t *testing.T) {
	Need(t, QEMU)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self)
	owner.Env = append(os.Environ(), ownerEnv+"="+filepath.Join(t.TempDir(), "lab"))
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	killed := owner.Process.Kill()
	_ = owner.Wait() // killed
	pid, perr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || perr != nil || killed != nil {
		t.Fatalf("the owner says %q (%v)", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for isQEMU(pid) {
		select {
		case <-ctx.Done():
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("QEMU (process %d) lives on after its owner was killed", pid)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// isQEMU tells whether a process runs QEMU; one that only waits for its
// parent's attention does not.
func isQEMU(pid int) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.HasPrefix(string(cmdline), QEMU)
}

// What a failed test prints for a person to repeat it does work.
func TestTheCommandByHandBoots(t *testing.T) {
	Need(t, QEMU)
	ctx, cancel := context.WithTimeout(t.Context(), maxWait)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "a lab, with odd characters")
	lab, err := Open(ctx, dir, Options{Again: "go test -run X"})
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "a,disk.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	segment, err := lab.LAN("lan")
	if err != nil {
		t.Fatal(err)
	}
	vm, err := lab.Start(ctx, Config{Name: "node", Memory: 64, Disks: []string{disk}, Boot: []Device{Disk}, NICs: []NIC{{LAN: segment}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vm.WaitConsole(ctx, "No bootable device"); err != nil {
		t.Fatal(err)
	}
	text := lab.Explain()
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"go test -run X", dir, "| No bootable device", "no event ever arrived"} {
		if !strings.Contains(text, want) {
			t.Errorf("the explanation lacks %q:\n%s", want, text)
		}
	}
	command := regexp.MustCompile(`(?m)^  (` + QEMU + ` .*)$`).FindStringSubmatch(text)
	if command == nil {
		t.Fatalf("no command in:\n%s", text)
	}
	hand := exec.CommandContext(ctx, "sh", "-c", "exec "+command[1])
	hand.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := hand.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	hand.Stderr = &complaints
	runtime.LockOSThread() // it dies with the thread that started it
	defer runtime.UnlockOSThread()
	if err := hand.Start(); err != nil {
		t.Fatal(err)
	}
	var console []byte
	booted := false
	for buf := make([]byte, 4096); !booted; {
		n, err := out.Read(buf)
		if err != nil {
			break
		}
		console = append(console, buf[:n]...)
		booted = strings.Contains(plain(console), "No bootable device")
	}
	_ = hand.Process.Kill()
	_ = hand.Wait() // killed
	if !booted {
		t.Errorf("nothing boots by hand: %s\n%s", complaints.String(), command[1])
	}
}
