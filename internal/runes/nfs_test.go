package runes

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNFSExportsToMembersOnly lays the rune nfs on a Debian root, and shows who may mount
// the homes: the members, by address.
func TestNFSExportsToMembersOnly(t *testing.T) {
	where := image(t, map[string]string{"usr/sbin/rpc.nfsd": "", "sbin/mount.nfs": "", "home/": ""})
	f := testFacts()
	f.Members = []MemberFact{{Hostname: "node-1a2b", Address: "10.77.3.4"}, {Hostname: "node-2", Address: "10.77.9.9"}}
	f.Unconfirmed = []string{"10.77.2.2"}
	if r := apply(t, where, builtins(t), f)["nfs"]; r.Outcome != Applied {
		t.Fatalf("%+v", r)
	}
	const options = "/home -rw,sync,fsid=0,no_subtree_check,root_squash,sec=sys "
	if got := read(t, where, "/run/viver-nfs/exports"); !strings.Contains(got, "\n"+options+"10.77.3.4 10.77.9.9 10.77.2.2\n") {
		t.Errorf("exports: %q", got)
	}
	if text := read(t, where, "/run/systemd/system/home.mount.d/viver.conf"); !strings.Contains(text, "LazyUnmount=yes") {
		t.Errorf("home.mount: %q", text)
	}
	// A line without an address would be for everybody.
	f.Members, f.Init = nil, "sysvinit"
	where = image(t, map[string]string{"usr/sbin/rpc.nfsd": "", "sbin/mount.nfs": "", "home/": ""})
	apply(t, where, builtins(t), f)
	if got := read(t, where, "/run/viver-nfs/exports"); strings.Contains(got, "/home -rw") {
		t.Errorf("exports without members: %q", got)
	}
	if text := read(t, where, "/run/systemd/system/home.mount.d/viver.conf"); text != "" {
		t.Errorf("without systemd there is %q", text)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", filepath.Join(where.Run, "viver-nfs/home")).CombinedOutput(); err != nil {
		t.Errorf("the script: %v: %s", err, out)
	}
	// An image whose /home is a link keeps it.
	where = image(t, map[string]string{"usr/sbin/rpc.nfsd": "", "sbin/mount.nfs": "", "srv/": "", "home": "->srv"})
	if r := apply(t, where, builtins(t), f)["nfs"]; r.Outcome != Skipped || !strings.Contains(r.Reason, "/home is a symbolic link") {
		t.Errorf("%+v", r)
	}
}
