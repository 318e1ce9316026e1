package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/handover"
	"viver.lan/internal/rootpath"
)

// handover becomes the distribution's init. It returns only when it fails.
func (n *node) handover(ctx context.Context) (string, error) {
	init, err := handover.FindInit(n.root, n.cmdline.Value("init"))
	if err != nil {
		return "", err
	}
	if err := control.WriteState(control.StagesFile, n.took); err != nil {
		n.log.Warn("seconds of the stages not saved", "error", err)
	}
	if err := n.background.stop(); err != nil {
		n.log.Warn("late devices", "error", err)
	}
	// Inits that read /etc/hostname set it again; others leave it as it is.
	if err := unix.Sethostname([]byte(n.boot.Hostname)); err != nil {
		n.log.Warn("hostname not set", "error", err)
	}
	if n.hangs(ctx) {
		n.log.Warn("handover: a disk or a driver does not answer; the init starts when the kernel has given it up")
	}
	n.log.Info(fmt.Sprintf("[%d/%d] handover: this machine is %s, %s; starting %s", len(n.stages()), len(n.stages()), n.boot.Hostname, n.net.Lease.Address.Addr(), init))
	n.events.Emit(event.Stage{Name: "handover", State: event.Done, Detail: init})
	return "", handover.Run(n.host, handover.Config{
		Root: n.root,
		Init: n.cmdline.Value("init"),
		Env:  n.initEnvironment(init),
		// These stay in the daemons' own mount namespace; here they would only keep a
		// stick busy.
		Detach: n.daemonMounts(),
		Log:    n.log,
	})
}

// initEnvironment has systemd tell the block daemon when the boot is over (sd_notify(3)).
// Other inits would hand the variable on to what they start, and each service that
// knows it would say that it is ready.
func (n *node) initEnvironment(init string) []string {
	program, err := rootpath.In(n.root, init)
	if err != nil || filepath.Base(program) != "systemd" {
		return nil
	}
	return []string{"NOTIFY_SOCKET=" + control.ReadySocket}
}

// daemonMounts are the mounts that only the daemons use from now on.
func (n *node) daemonMounts() []string {
	dirs := []string{control.PieceDir}
	if n.boot.First {
		dirs = append(dirs, mediumDir)
	}
	if n.boot.Cache != "" {
		dirs = append(dirs, cacheDir)
	}
	return dirs
}
