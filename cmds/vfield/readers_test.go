package main

import (
	"path/filepath"
	"testing"
)

// NBD clients by other people read every export of a node that has to fetch
// what they read.
func TestNetnsNBDReaders(t *testing.T) {
	if !onOneLink(t) {
		return
	}
	for _, name := range []string{"nbdinfo", "nbdcopy", "qemu-img", "qemu-io"} {
		needs(t, name, "--version")
	}
	pic := newPicture(t, 6<<20+4099)
	origin := startOrigin(t, pic)
	node := startVfield(t, 2, pic, "--origin", origin.swarm.String())

	var list struct {
		Exports []struct {
			Name        string `json:"export-name"`
			Description string `json:"description"`
			Size        int64  `json:"export-size"`
			ReadOnly    bool   `json:"is_read_only"`
			MultiConn   bool   `json:"can_multi_conn"`
		} `json:"exports"`
	}
	decode(t, stranger(t, "nbdinfo", "--list", "--json", node.nbd), &list)
	if len(list.Exports) != len(pic.info.Files) {
		t.Fatalf("nbdinfo lists %d exports of %d: %+v", len(list.Exports), len(pic.info.Files), list)
	}
	for i, e := range list.Exports {
		if f := pic.info.Files[i]; e.Name != f.Name || e.Size != f.Size || e.Description != "tiny, "+f.Name || !e.ReadOnly || !e.MultiConn {
			t.Errorf("nbdinfo sees %+v, want %+v, read-only, for many connections", e, f)
		}
	}
	root := filepath.Join(pic.dir, "root.squashfs")
	for _, f := range pic.info.Files {
		stranger(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", node.nbd+"/"+f.Name, filepath.Join(pic.dir, f.Name))
	}
	node.readAll(pic)
	// The root disk is the export that a client gets that asks for none.
	copied := filepath.Join(t.TempDir(), "copied")
	stranger(t, "nbdcopy", "--connections=4", node.nbd, copied)
	stranger(t, "cmp", root, copied)
	stranger(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", node.nbd, copied)
	stranger(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", root, copied)
	stranger(t, "qemu-io", "-r", "-f", "raw", "-c", "read 1000000 3000000", node.nbd)
}
