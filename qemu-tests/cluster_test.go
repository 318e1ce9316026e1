package scenarios

import (
	"path/filepath"
	"testing"

	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// cluster is a network of machines with the image `cluster`, all of them up.
type cluster struct {
	first *harness.VM // has the medium
	store *harness.VM // has the saved-data disk
	work  *harness.VM // has a disk with other homes
}

// all are its machines.
func (c cluster) all() []*harness.VM { return []*harness.VM{c.first, c.store, c.work} }

// clusterSettings switches on what the parts of TestFullCluster look at. Each machine has
// room for the whole image, so that the last one goes on alone.
const clusterSettings = `
[vfield]
memory = "35%"
[rune.mpi]
trust = "members"
[rune.batch]
trust = "members"
state = "/home/.slurm"
`

// The runes that make one computer of a network, with the programs that do the work.
// The machines boot once, for all parts; a part leaves them all up:
//
//	[ CD ]──[ first ]──┤
//	[ disk ]──[ store ]──┤ lan
//	[ disk ]──[ work ]──┤
func TestFullCluster(t *testing.T) {
	harness.Need(t, "mkfs.ext4")
	lab := harness.New(t, harness.Options{VMs: 3})
	lan := segment(t, lab)
	homes := func(name string) string {
		disk := filepath.Join(t.TempDir(), name)
		if err := media.NewDisk(t.Context(), disk, media.DiskSpec{FS: "ext4", Size: 512 << 20, Files: map[string]string{"viver-data/home/" + name: ""}}); err != nil {
			t.Fatal(err)
		}
		return disk
	}
	nics := []harness.NIC{{LAN: lan}}
	c := cluster{first: start(t, lab, harness.Config{Name: "first", Memory: 1024, CDROM: medium(t, "cluster", clusterSettings, usersRune(t), webFarm(t)), NICs: nics})}
	serving(t, c.first)
	c.store = start(t, lab, harness.Config{Name: "store", Memory: 1024, Disks: []string{homes("store")}, Boot: []harness.Device{harness.Network}, NICs: nics})
	c.work = start(t, lab, harness.Config{Name: "work", Memory: 1024, Disks: []string{homes("work")}, Boot: []harness.Device{harness.Network}, NICs: nics,
		Args: []string{"-rtc", "base=1970-01-02T00:00:00"}}) // its battery is empty
	giveKey(t, c.first)
	pin(t, c, homesRole, c.store) // until they are in use
	for _, vm := range c.all() {
		ready(t, vm)
	}

	t.Run("names", func(t *testing.T) { membersHaveNames(t, c) })
	t.Run("users", func(t *testing.T) { usersAreTheSame(t, c) })
	t.Run("time", func(t *testing.T) { clocksAgree(t, c) })
	t.Run("compile", func(t *testing.T) { compileOverAll(t, c.all()) })
	t.Run("nfs", func(t *testing.T) { homesAreShared(t, c) })
	t.Run("farm", func(t *testing.T) { farmServes(t, c.all()) })
	t.Run("logs", func(t *testing.T) { logsAreCollected(t, c) })
	t.Run("programs", func(t *testing.T) { programsRunOnAll(t, c) })
	t.Run("watch", func(t *testing.T) { theGoneIsReported(t, c) })
	t.Run("death", func(t *testing.T) { theFirstDies(t, c) })

	name := ready(t, c.store)
	// The server of the homes first, so that the other leaves without it.
	for _, vm := range []*harness.VM{c.store, c.work} {
		_, _ = vm.Do(t.Context(), execproto.Request{Argv: []string{"poweroff"}}) // the agent may die before it answers
		if why, err := vm.WaitOff(t.Context()); err != nil || why != "guest-shutdown" {
			t.Errorf("%s went off by %q, %v; want a clean poweroff", vm.Name(), why, err)
		}
		if vm == c.store {
			eventually(t, c.work, "word that it has left", func() bool { return logged(t, c.work, "left", name) })
		}
	}
}
