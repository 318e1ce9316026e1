package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/cmdline"
	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/klog"
)

// pseudofs mounts what every later stage reads and writes.
func (n *node) pseudofs(context.Context) (string, error) {
	for _, m := range []struct {
		source, target, fstype, data string
		flags                        uintptr
	}{
		{"proc", "/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
		// /run goes with us into the distribution, which expects it like this.
		{"tmpfs", "/run", "tmpfs", "mode=0755,size=20%", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return "", fmt.Errorf("mount %s: %w", m.target, err)
		}
		// The kernel may have mounted devtmpfs already (CONFIG_DEVTMPFS_MOUNT).
		if err := n.host.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return "", err
		}
	}
	if err := os.MkdirAll(control.RunDir, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", control.RunDir, err)
	}
	// Without this the kernel drops all but ten of our lines in five seconds.
	if err := os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0o644); err != nil {
		n.log.Debug("kernel log is rate limited", "error", err)
	}
	if err := answerKernel(n.host); err != nil {
		return "", err
	}
	if err := n.kernelLog.connect(klog.Open()); err != nil {
		return "", fmt.Errorf("write the kernel log: %w", err)
	}
	raw, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("read the kernel command line: %w", err)
	}
	n.cmdline = cmdline.Parse(string(raw))
	n.config = config.New()
	n.config.AddCommandLine(n.cmdline, bootArguments()...)
	return n.cmdline.String(), nil
}

// modprobe is what most kernels run when they want a module themselves.
const modprobe = "/sbin/modprobe"

// answerKernel has the kernel run this program when it wants a module. The kernel says
// where it looks (CONFIG_MODPROBE_PATH): that of RHEL in /usr/sbin. The initramfs
// does not bring that file: before process 1 the kernel asks for modules of its
// cryptography, several times, which are built in, and waits for each answer, for which a
// program of this size has to start.
func answerKernel(m interface{ Path(name string) string }) error {
	name := modprobe
	if text, err := os.ReadFile(m.Path("/proc/sys/kernel/modprobe")); err == nil {
		if said := strings.TrimSpace(string(text)); filepath.IsAbs(said) {
			name = said
		}
	}
	file := m.Path(name)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte("#!/bbin/uinit modprobe\n"), 0o755)
	}
	if err != nil {
		return fmt.Errorf("let the kernel ask for modules: %w", err)
	}
	return nil
}
