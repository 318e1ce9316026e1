// Package imagebuild turns an installed Linux into a diskless image, and an
// image into a bootable medium.
//
//	tree (directory or tar) --Check--> kernel, modules, problems
//	tree --squashfs--> root.squashfs    kernel + modules + Go part --> initramfs.img, drivers.img
//	files --metainfo--> image.torrent --> manifest.json --sign--> manifest.json.minisig
//	all of these --BuildMedium--> ISO
//
// It reads the source and never writes to it: what must not travel is left out of
// the stream on the way and reported (rules.go, docs/images.md), and so is what a
// squashfs cannot hold; no right gets wider. It does not install distributions
// (see images/) and needs no Go toolchain. The invariant: under an image's or
// medium's final name there is a whole one, or what was there before.
package imagebuild
