package netbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// mark is the environment variable that holds the network namespace of
// whoever entered: we are inside as long as ours is another.
const mark = "VIVER_NETBED"

// Inside reports whether this process runs in namespaces made by Self.
func Inside() bool {
	outer := os.Getenv(mark)
	own, err := os.Readlink("/proc/self/ns/net")
	return err == nil && outer != "" && outer != own
}

// Self returns a command that runs this program again, with these arguments,
// in new user, network, mount and process namespaces, where it is root and
// where beds can be made. When it ends, whatever way, the kernel ends every
// process below it; it is killed when the thread that started it ends, which
// should be locked till then. Its first act should be Settle.
//
// Needs user namespaces (sysctl user.max_user_namespaces), not root.
func Self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	outer, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("enter namespaces: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), mark+"="+outer)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	return cmd, nil
}

// Settle makes the namespaces this process was started in usable: mounts stay
// our own and /proc shows our processes.
func Settle() error {
	if !Inside() {
		return errOutside
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	// In a container that hides parts of /proc the kernel refuses a new one.
	// The old one serves too: /proc/self is us in both.
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc of our own: %w", err)
	}
	return nil
}

var errOutside = errors.New("this process shares the network of its host; run it by netbed.Self")
