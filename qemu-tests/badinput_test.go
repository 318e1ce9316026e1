package scenarios

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

const nonsense = `[node]
prefx = "lab"
prefix = "Not A Hostname"
[network]
pool = "the usual"
`

// badRunes are runes that no tool would put on a medium.
func badRunes() map[string]string {
	files := map[string]string{
		"malformed/rune.toml":         "nonsense",
		"no-role/rune.toml":           "name = \"no-role\"\n[[service]]\nname = \"s\"\nrole = \"r\"\nstart = [\"/bin/s\"]\n",
		"elsewhere/rune.toml":         "name = \"elsewhere\"\n[requires]\ndistribution = [\"plan9\"]\n",
		"template/rune.toml":          "name = \"template\"\n",
		"template/files/etc/bad.tmpl": "{{ index .DNS 99 }}",
		"cycle/rune.toml":             "name = \"cycle\"\norder = 20\n[symlinks]\n\"/etc/cycle\" = \"cycle2\"\n\"/etc/cycle2\" = \"cycle\"\n",
		"in-cycle/rune.toml":          "name = \"in-cycle\"\n",
		"in-cycle/files/etc/cycle/x":  "x",
		"owner/rune.toml":             "name = \"owner\"\norder = 20\n",
		"owner/files/etc/mine":        "one",
		"thief/rune.toml":             "name = \"thief\"\n",
		"thief/files/etc/mine":        "two",
	}
	onMedium := make(map[string]string)
	for name, text := range files {
		onMedium["viver/runes/"+name] = text
	}
	return onMedium
}

// A person has typed nonsense into everything that can be typed into: each is
// said by name and line, and the machine boots with its defaults.
func TestNonsenseIsReportedAndIgnored(t *testing.T) {
	t.Parallel()
	// The tool would refuse such a file; an editor does not.
	iso := medium(t, "tiny", "")
	files := badRunes()
	files["viver/viver.toml"] = nonsense
	if err := media.Edit(t.Context(), iso, files); err != nil {
		t.Fatal(err)
	}
	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "first", CDROM: iso,
		Kernel: out(t, "tiny", manifest.Kernel), Initrd: withDrivers(t, "tiny"),
		Append: `console=ttyS0 viver. =x viver.nope=1 viver.overlay.size=900% ip=a:b BOOTIF=zz viver.medium= "`,
		NICs:   []harness.NIC{{LAN: segment(t, lab)}}})
	name := ready(t, vm)
	if !strings.HasPrefix(name, "node-") {
		t.Errorf("hostname %q, want the default prefix", name)
	}
	s := wait(t, vm, "the settings stage", func(s event.Stage) bool { return s.Name == "settings" && s.State == event.Degraded })
	for _, want := range []string{"line 2: node.prefx", "line 3: node.prefix", "line 5: network.pool", "nope", "overlay.size"} {
		if !strings.Contains(s.Detail, want) {
			t.Errorf("the settings stage does not say %q: %s", want, s.Detail)
		}
	}
	var became []control.RuneResult
	if err := json.Unmarshal([]byte(run(t, vm, "@read", control.RunesBootFile)), &became); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"malformed": "rune.toml", "no-role": `rune.toml:4: service[0].role: "r"`, "elsewhere": "the rune is for plan9", "template": "/etc/bad: ",
		"cycle": "", "in-cycle": "symbolic links", "owner": "", "thief": "/etc/mine is laid by the runes owner and thief",
	} {
		i := slices.IndexFunc(became, func(r control.RuneResult) bool { return r.Rune == name })
		if i < 0 || (want == "") != (became[i].Reason == "") || !strings.Contains(became[i].Reason, want) {
			t.Errorf("of the rune %s is known %+v, want %q", name, became, want)
		}
	}
}

// Two media in one machine: the one it was booted from is used.
func TestTwoMedia(t *testing.T) {
	t.Parallel()
	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", "[node]\nprefix = \"cd\"\n"),
		USBStick: medium(t, "tiny", "[node]\nprefix = \"usb\"\n"), Boot: []harness.Device{harness.USB, harness.CD},
		NICs: []harness.NIC{{LAN: segment(t, lab)}}})
	if name := ready(t, vm); !strings.HasPrefix(name, "usb-") {
		t.Errorf("hostname %q: the settings are not those of the medium it was booted from", name)
	}
	s := wait(t, vm, "the medium stage", func(s event.Stage) bool { return s.Name == "medium" && s.State == event.Done })
	if !strings.Contains(s.Detail, "not used") {
		t.Errorf("nothing is said of the other medium: %q", s.Detail)
	}
}

// No boot host answers and no medium is there.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "lost", Kernel: out(t, "tiny", manifest.Kernel),
		Initrd: out(t, "tiny", manifest.Initramfs), Append: "console=ttyS0", NICs: []harness.NIC{{LAN: segment(t, lab)}}})
	m := wait(t, vm, "the medium stage", func(s event.Stage) bool { return s.Name == "medium" && s.State == event.Degraded })
	if !strings.Contains(m.Detail, "VIVER") {
		t.Errorf("the medium stage does not say what it looked for: %q", m.Detail)
	}
	n := wait(t, vm, "the network stage to be tried again", func(s event.Stage) bool { return s.Name == "network" && s.State == event.Retrying })
	if !strings.Contains(n.Detail, "DHCP") {
		t.Errorf("the network stage does not say what was missing: %q", n.Detail)
	}
}

// damaged starts a machine on a spoiled medium. QEMU loads kernel and
// initramfs, so that the boot loader's own reads play no part.
func damaged(t *testing.T, iso string) *harness.VM {
	t.Helper()
	return booted(t, iso, "console=ttyS0")
}

// booted boots a medium past its boot loader.
func booted(t *testing.T, iso, arguments string) *harness.VM {
	t.Helper()
	lab := harness.New(t, harness.Options{})
	return start(t, lab, harness.Config{Name: "first", CDROM: iso, Kernel: out(t, "tiny", manifest.Kernel),
		Initrd: withDrivers(t, "tiny"), Append: arguments, NICs: []harness.NIC{{LAN: segment(t, lab)}}})
}

const rootOnMedium = "/viver/image/" + manifest.Root

// A medium whose image lost a bit: the wrong bytes are never read, the console
// names the piece, and the boot waits for a peer that has it.
func TestFlippedBitOnTheMedium(t *testing.T) {
	t.Parallel()
	iso := medium(t, "tiny", "")
	// In the super block, which the attach stage reads.
	if err := media.FlipBit(t.Context(), iso, rootOnMedium, 100); err != nil {
		t.Fatal(err)
	}
	vm := damaged(t, iso)
	wait(t, vm, "a read of the damaged piece that waits", func(w event.Waiting) bool { return w.Piece == 0 })
	if text := vm.Console().Text(); !regexp.MustCompile(`vfield: .*medium.*\bpiece=0\b`).MatchString(text) {
		t.Errorf("the console does not name the piece:\n%s", text)
	}
	for _, rec := range vm.Records() {
		if s, ok := harness.As[event.Stage](rec.Record); ok && s.Name == "root" && s.State == event.Done {
			t.Error("the machine made a root of a damaged image")
		}
	}
}

// A medium that was copied by half: its marker cannot be read, and the stage
// says which drive it is in.
func TestTruncatedMedium(t *testing.T) {
	t.Parallel()
	iso := medium(t, "tiny", "")
	at, size, err := media.Extent(t.Context(), iso, rootOnMedium)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(iso, at+size/2); err != nil {
		t.Fatal(err)
	}
	s := wait(t, damaged(t, iso), "the medium stage", func(s event.Stage) bool { return s.Name == "medium" && s.State == event.Degraded })
	if !strings.Contains(s.Detail, "sr0") || !strings.Contains(s.Detail, "input/output error") {
		t.Errorf("the medium stage does not say what is wrong: %q", s.Detail)
	}
}

// An image that somebody else built and signed: the initramfs knows its owner
// and refuses it with a sentence that names both keys. Whoever presses a key then
// has a shell; leaving it restarts the machine.
func TestImageOfSomebodyElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image, iso := filepath.Join(dir, "other"), filepath.Join(dir, "other.iso")
	viver(t, "image", "build", out(t, "trees", "tiny"), "-o", image, "--modules", "none", "--level", "1", "--key", filepath.Join(dir, "other.key"))
	viver(t, "medium", "build", image, "-o", iso, "--public", filepath.Join(dir, "other.pub"))
	vm := booted(t, iso, "console=ttyS0 console=tty0") // the keyboard's console is the last one
	s := wait(t, vm, "the image to be refused", func(s event.Stage) bool { return s.Name == "image" && s.State == event.Stopped })
	for _, part := range []string{"refused", "signed by", "expected"} {
		if !strings.Contains(s.Detail, part) {
			t.Errorf("%q does not say %q", s.Detail, part)
		}
	}
	if _, err := vm.WaitConsole(t.Context(), "this machine cannot go on"); err != nil {
		t.Fatal(err)
	}
	resets := vm.Resets()
	if err := vm.PressKeys(t.Context(), "ret"); err != nil {
		t.Fatal(err)
	}
	// What is typed while the shell starts is lost, so it is typed again.
	eventually(t, vm, "the shell to take what is typed", func() bool {
		if err := vm.Type(t.Context(), "echo typed-by-hand >/dev/kmsg"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		_, err := vm.WaitConsole(ctx, `\] typed-by-hand`)
		return err == nil
	})
	if err := vm.Type(t.Context(), "exit"); err != nil {
		t.Fatal(err)
	}
	if err := vm.WaitReset(t.Context(), resets); err != nil {
		t.Error(err)
	}
}
