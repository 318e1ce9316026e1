// Package booted starts programs in the booted system, from a process that stayed behind
// in the mount namespace of the initramfs: they see the root, the mounts and the users
// that process 1 has.
//
// It waits for none of them and keeps none running. The invariant: the process itself
// never leaves its own namespace; only a thread that then ends does.
package booted

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/rootpath"
	"viver.lan/internal/thread"
)

// System is a booted system, known by a process that sees it.
type System struct {
	// Process is that process's directory, /proc/1 on a node.
	Process string
}

// Root is the path of the system's root for this process.
func (s System) Root() string { return filepath.Join(s.Process, "root") }

// Has reports whether the system has a program. Its links are followed below its root: here
// they would lead elsewhere.
func (s System) Has(program string) bool {
	name, err := rootpath.In(s.Root(), program)
	if err == nil {
		_, err = os.Stat(filepath.Join(s.Root(), name))
	}
	return err == nil
}

// Start starts cmd, whose path is one of the system, there. account is the user that it
// runs as, "" for root. Its working directory is the root.
func (s System) Start(cmd *exec.Cmd, account string) error {
	cmd.Err = nil // it was looked for here
	cmd.Path = cmd.Args[0]
	err := thread.Run(func() error {
		// A daemon's own is for the daemon.
		if err := errors.Join(s.enter(), thread.SetTimerSlack(thread.DefaultTimerSlack)); err != nil {
			return err
		}
		if account != "" {
			if err := runAs(cmd, account); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err != nil {
		return fmt.Errorf("start %s in the booted system: %w", cmd.Args[0], err)
	}
	return nil
}

// enter moves this thread into the system.
func (s System) enter() error {
	ns, err := os.Open(filepath.Join(s.Process, "ns/mnt"))
	if err != nil {
		return err
	}
	defer ns.Close()
	root, err := os.Open(s.Root())
	if err != nil {
		return err
	}
	defer root.Close()
	// A thread that shares its working directory and root with others cannot leave.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the others: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter its mount namespace: %w", err)
	}
	// The root of the namespace may be covered by the one that the process has.
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return err
	}
	return errors.Join(unix.Chroot("."), unix.Chdir("/"))
}

// runAs makes cmd run as a user of the system. This thread has its root, so the files
// read are the system's.
func runAs(cmd *exec.Cmd, account string) error {
	u, err := user.Lookup(account)
	if err != nil {
		return fmt.Errorf("the image has no user %q: %w", account, err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("groups of %s: %w", account, err)
	}
	ids := make([]uint32, 0, 2+len(groups))
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("user %s: %w", account, err)
		}
		ids = append(ids, uint32(id))
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+account, "LOGNAME="+account)
	return nil
}
