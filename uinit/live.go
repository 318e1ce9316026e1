package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/durable"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

// fetchLive gets the live layer of the boot host's network, so that this machine boots
// with what was added to it. Without success the layer comes when the machine is up:
// then it cannot give the distribution what that reads while it boots.
func (n *node) fetchLive(ctx context.Context, ownerFile string) (l livelayer.Layer, err error) {
	text, err := fetch(ctx, n.boot.Host, "live.json")
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	var o operator.Override
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		return l, fmt.Errorf("live layer: %w", err)
	}
	return n.takeLive(o, ownerFile, func(p livelayer.Pointer) ([]byte, error) {
		return fetch(ctx, n.boot.Host, livestore.HTTPDir+p.Digest.String())
	})
}

// savedLive gets the live layer of the saved-data disk, for the machine that is the first
// on, but nothing where the boot host named another network.
func (n *node) savedLive(dir, ownerFile string) (l livelayer.Layer, err error) {
	if n.layerNetwork != "" && n.layerNetwork != n.boot.SavedNetwork {
		return l, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, operator.SavedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("live layer: %w", err)
	}
	overrides, _ := operator.ParseAll(text, len(text)) // the block daemon says what is damaged
	for _, o := range overrides {
		if o.Key == livelayer.Key && o.Network == n.boot.SavedNetwork {
			return n.takeLive(o, ownerFile, func(p livelayer.Pointer) ([]byte, error) {
				return os.ReadFile(livestore.Path(filepath.Join(dir, livestore.SavedDir), p.Digest))
			})
		}
	}
	return l, nil
}

// takeLive takes the layer that an override points to, if the owner signed that.
func (n *node) takeLive(o operator.Override, ownerFile string, get func(livelayer.Pointer) ([]byte, error)) (l livelayer.Layer, err error) {
	owner, err := sign.ReadPublicKey(ownerFile)
	if err == nil {
		err = o.Check()
	}
	if err == nil {
		err = owner.Verify(sign.Override, o.SignedBytes(), o.Signature)
	}
	var p livelayer.Pointer
	if err == nil {
		p, err = livelayer.ParsePointer(o.Value)
	}
	if err == nil && o.Key != livelayer.Key {
		err = fmt.Errorf("an override of %s", o.Key)
	}
	if err != nil {
		return l, fmt.Errorf("live layer: %w", err)
	}
	n.layerNetwork = o.Network
	if p == (livelayer.Pointer{}) {
		return l, nil // it was taken back
	}
	data, err := get(p)
	if err == nil {
		err = p.Check(data)
	}
	if err == nil {
		l, err = livelayer.Decode(data)
	}
	if err != nil {
		return livelayer.Layer{}, fmt.Errorf("live layer %d: %w", o.Sequence, err)
	}
	n.layerData = data
	return l, nil
}

// keepLive leaves a layer for the block daemon and @vrune, so that they need not fetch it
// again.
func keepLive(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := os.MkdirAll(control.LiveDir, 0o755); err != nil {
		return fmt.Errorf("keep the live layer: %w", err)
	}
	return durable.WriteFile(livestore.Path(control.LiveDir, livelayer.PointTo(data).Digest), data, 0o644)
}

// savedDir is the folder of the saved-data disk that is mounted.
func savedDir() string { return filepath.Join(control.SavedDir, disks.Marker) }
