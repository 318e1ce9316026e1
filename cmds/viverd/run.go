package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/event"
	"viver.lan/internal/klog"
	"viver.lan/internal/manifest"
	"viver.lan/internal/netconf"
)

// run serves boots until ctx ends.
func run(ctx context.Context) error {
	log := klog.New(os.Stderr, "viverd")
	events := event.NewLog("viverd", klog.Uptime)
	if port, err := event.OpenPort("/sys", "/dev", event.PortName("viverd")); err == nil {
		defer port.Close()
		events.AddSink(port)
	}
	boot, err := control.ReadBoot(control.BootFile)
	if err != nil {
		return err
	}
	f, err := os.Open(netconf.StateFile)
	if err != nil {
		return fmt.Errorf("read the network's state: %w", err)
	}
	defer f.Close()
	network, err := netconf.ReadNetwork(f)
	if err != nil {
		return err
	}
	img, err := openImage()
	if err != nil {
		return err
	}
	iface, err := net.InterfaceByIndex(network.Link.Index)
	if err != nil {
		return fmt.Errorf("boot link %s: %w", network.Link, err)
	}
	cfg := boothost.Config{
		Interface:  *iface,
		Address:    network.Lease.Address,
		Mode:       dhcp.External,
		Router:     network.Lease.Router,
		DNS:        network.Lease.DNS,
		Hostname:   func(mac dhcp.MAC) string { return boot.NodeName(mac.String()) },
		Image:      img,
		KernelArgs: strings.Fields(boot.KernelArguments),
		Status:     func() any { return img.status() },
		Metrics:    prometheus.NewRegistry(),
		Events:     events,
		Log:        log,
	}
	if boot.ServeDHCP {
		cfg.Mode, cfg.Pool = dhcp.Full, boot.Pool
	}
	if cfg.Settings, err = optional(control.SettingsFile); err != nil {
		return err
	}
	if cfg.Runes, err = optional(control.RunesFile); err != nil {
		return err
	}
	host, err := boothost.New(cfg)
	if err != nil {
		return err
	}
	return host.Run(ctx)
}

// optional reads a file that may be absent; its content is then empty.
func optional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return []byte{}, nil
	}
	return data, err
}

// image serves the payload through the block daemon, so that a boot host needs
// no medium once the swarm holds the image.
type image struct {
	manifest        *manifest.Manifest
	text, signature []byte // of the manifest, as uinit got and checked them
	metainfo        []byte
	daemon          *control.Client
}

func openImage() (*image, error) {
	text, err := os.ReadFile(control.ManifestFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's manifest: %w", err)
	}
	m, err := manifest.Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	signature, err := os.ReadFile(control.SignatureFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's signature: %w", err)
	}
	metainfo, err := os.ReadFile(control.MetainfoFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's metainfo: %w", err)
	}
	return &image{manifest: m, text: text, signature: signature, metainfo: metainfo, daemon: control.NewClient(control.Socket)}, nil
}

// Manifest implements boothost.Image.
func (i *image) Manifest() *manifest.Manifest { return i.manifest }

// Signed implements boothost.Image.
func (i *image) Signed() (text, signature []byte) { return i.text, i.signature }

// Metainfo implements boothost.Image.
func (i *image) Metainfo() []byte { return i.metainfo }

// Open implements boothost.Image.
func (i *image) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	f, _, ok := i.manifest.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return i.daemon.Open(ctx, name, f.Size), nil
}

// status is the block daemon's word, for the status page.
func (i *image) status() any {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	status, err := i.daemon.Status(ctx)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	return status
}
