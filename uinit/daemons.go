package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// startDaemons starts the processes that stay behind, as soon as the machine can show
// what they say: a program of their size needs a while until it runs, which passes while
// the network is looked for. They wait until the stages vfield and agent let them begin.
func (n *node) startDaemons(context.Context) (string, error) {
	cmd := exec.Command("/bbin/vfield")
	// The "@" is for inits that end everything at shutdown, the second word for
	// the busybox, which does not know that name.
	cmd.Args = []string{"@supervise", "vfield", "supervise"}
	cmd.Env = []string{"PATH=/bbin:/sbin", "GOGC=50"}
	starts, err := startWaiting(n.host, cmd, 3)
	if err != nil {
		return "", fmt.Errorf("start the supervisor: %w", err)
	}
	n.vfieldStart, n.agentStart, n.runnerStart = starts[0], starts[1], starts[2]
	return "waiting for what they need", cmd.Process.Release()
}

// agent lets the agent begin: what it serves is there, and the root disk does not wait
// for the processor any more.
func (n *node) agent(context.Context) (string, error) {
	return "begun", n.agentStart.Close()
}

// mounter is what making two mount namespaces alike needs of the machine.
type mounter interface {
	Mount(source, target, fstype string, flags uintptr, data string) error
}

// startWaiting starts a program in a mount namespace of its own, so that nothing the
// distribution does to its mounts reaches it. Until begin it sees what is mounted here.
// From descriptor 3 on it has as many files as starts says, which never hold anything.
// Each ends when the one returned for it is closed, also by our death.
func startWaiting(m mounter, cmd *exec.Cmd, starts int) (ends []*os.File, err error) {
	if err := m.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range cmd.ExtraFiles {
			err = errors.Join(err, f.Close())
		}
	}()
	for range starts {
		input, end, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles, ends = append(cmd.ExtraFiles, input), append(ends, end)
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	return ends, cmd.Start()
}

// begin lets a program begin that startWaiting has started, with the mounts of this
// moment. From now on neither sees what the other mounts.
func begin(m mounter, start *os.File) error {
	if err := m.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return start.Close()
}
