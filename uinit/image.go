package main

import (
	"context"
	"errors"
	"fmt"

	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
)

// ownerFile is the public key that this initramfs was built with. It came with
// the kernel, so it is as good as what the firmware loaded.
const ownerFile = "/" + manifest.OwnerKey

// chooseImage finds out which image to run, from the medium or the boot host, and
// writes its description for the daemons if the owner's signature is right.
func (n *node) chooseImage(ctx context.Context) (string, error) {
	owner, err := sign.ReadPublicKey(ownerFile)
	if err != nil {
		return "", fmt.Errorf("%w: this initramfs has no owner's key: %w; build the image again", errRefused, err)
	}
	o, err := n.offered(ctx)
	if err != nil {
		return "", err
	}
	image, err := o.accept(owner, n.argument(argImage))
	if err != nil {
		return "", err
	}
	if err := o.Write(control.RunDir); err != nil {
		return "", err
	}
	n.image = image
	return fmt.Sprintf("%s (%s)", image.Name, image.Infohash), nil
}

// offer is the description of an image, not verified yet.
type offer struct {
	from string // "on this medium"
	description.Files
}

// offered gets the description from the medium or the boot host.
func (n *node) offered(ctx context.Context) (o offer, err error) {
	get := description.In(n.boot.Medium)
	o.from = "on this medium"
	if !n.boot.First {
		hash, err := manifest.ParseInfohash(n.argument(argImage))
		if err != nil {
			return o, fmt.Errorf("viver.image= on the kernel command line: %w", err)
		}
		o.from = "that the boot host " + n.boot.Host.Addr().String() + " offers"
		get = func(name string) ([]byte, error) { return fetch(ctx, n.boot.Host, "boot/"+hash.String()+"/"+name) }
	}
	if o.Files, err = description.Read(get); errors.Is(err, description.ErrNotSigned) {
		err = o.refuse(err)
	}
	return o, err
}

// refuse is the error for an image of another owner.
func (o offer) refuse(reason error) error {
	return fmt.Errorf("%w: the image %s is not signed by the owner of this initramfs: %w; take the boot files and the image from one medium, and one boot host per network", errRefused, o.from, reason)
}

// accept takes the owner's image and no other. Nothing of an offer is decoded before
// its signature is checked. want is the infohash asked for, "" for any.
func (o offer) accept(owner sign.PublicKey, want string) (*manifest.Manifest, error) {
	if err := o.SignedBy(owner); err != nil {
		return nil, o.refuse(err)
	}
	image, info, err := o.Decode()
	if err == nil && want != "" && want != info.Infohash.String() {
		err = fmt.Errorf("the image %s is %s, the kernel command line asks for %s: it was changed between; restart this machine", o.from, info.Infohash, want)
	}
	return image, err
}
