package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cmdline"
	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/event"
	"viver.lan/internal/hardware"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/machine"
	"viver.lan/internal/manifest"
	"viver.lan/internal/runes"
)

// node is the state of a boot. Each stage reads what those that it needs found, and
// adds its own. Stages that may run beside each other share nothing that one of them
// writes but what guards itself: a test reads the source for that.
type node struct {
	host      machine.Host
	log       *slog.Logger
	events    *event.Log
	kernelLog *buffer
	early     *buffer
	took      map[string]float64
	// background is work that goes on beside the stages, until the handover.
	background background

	cmdline      cmdline.Line       // pseudofs
	config       *config.Config     // pseudofs, medium, network
	modules      *hardware.Loader   // hardware
	machine      hardware.Machine   // hardware
	mediumDisk   string             // medium: the disk that is the medium, "" elsewhere
	net          bootnet.Network    // network
	cmdlineName  string             // network: the hostname in ip=
	found        []disks.Found      // disks: for saved data
	caches       []disks.Found      // disks: for pieces
	settings     config.Settings    // settings
	image        *manifest.Manifest // image
	bundles      []runes.Bundle     // bundles
	layer        livelayer.Layer    // bundles: what was added to the network
	layerData    []byte             // bundles: its file
	layerNetwork string             // bundles: that it was signed for, also if the layer is missing
	layerMissing bool               // bundles, runes: what was added could not be had
	mediumRunes  []error            // medium: why some of its runes are not used
	broken       []error            // bundles: why some are not among them
	vfieldStart  *os.File           // daemons: closed, and nil, when @vfield may begin (vfield)
	agentStart   *os.File           // daemons: closed when @viverd may begin (agent)
	runnerStart  *os.File           // daemons: closed when @vrune may begin, by the exec of the handover
	rootDevice   string             // attach
	root         string             // root
	boot         control.Boot       // filled all along, written by vfield
}

// The arguments that say where this machine was booted from. They are no
// settings: nobody writes them into a file.
const (
	argMedium = "medium" // ID of the medium the boot loader came from
	argHost   = "host"   // address, or address:port, of the boot host
	argOrigin = "origin" // address of the machine with the medium, if the boot host knew of one
	argImage  = "image"  // infohash of the image to run
)

func bootArguments() []string { return []string{argMedium, argHost, argOrigin, argImage} }

// argument returns the value of a boot argument, "" when it is absent.
func (n *node) argument(name string) string {
	return n.cmdline.Value(cmdline.Prefix + name)
}

// background runs what must go on beside the stages.
type background struct {
	cancel context.CancelFunc
	ctx    context.Context
	group  *errgroup.Group
}

func newBackground() background {
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	return background{cancel: cancel, ctx: ctx, group: group}
}

// Go starts one piece of work; its context ends with stop.
func (b *background) Go(f func(context.Context) error) {
	b.group.Go(func() error { return f(b.ctx) })
}

// stop ends the work and waits for it. Being told to end is no error.
func (b *background) stop() error {
	b.cancel()
	if err := b.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
