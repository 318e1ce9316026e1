package scenarios

import (
	"fmt"
	"image"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/testtable"
	"viver.lan/qemu-tests/harness"
)

// The login screen of the image `desktop-minimal`, which is that of `desktop`, comes up on
// the machine with the medium and on machines that boot from it, with whatever graphics
// card: Xorg finds its driver, and takes the resolution that the screen asks for, where the
// card passes that on. On the first a guest logs in. QEMU's vmware-svga is not among the
// cards: it is too old for the vmwgfx of Debian 12's kernel ("Hardware has no pitchlock").
//
//	[ CD ]──[ first ]──┤ lan ├──[ one machine after the other ]
func TestFullDesktop(t *testing.T) {
	lab := harness.New(t, harness.Options{VMs: 2})
	lan := segment(t, lab)
	nics := []harness.NIC{{LAN: lan}}
	first := start(t, lab, harness.Config{Name: "first", Memory: 1024, CDROM: medium(t, "desktop-minimal", ""), NICs: nics})
	serving(t, first)
	showsLogin(t, first, "bios", "VGA", image.Point{})
	// The guest is chosen, and needs no password.
	if err := first.PressKeys(t.Context(), "ret"); err != nil {
		t.Fatal(err)
	}
	eventually(t, first, "the guest's window manager", func() bool {
		text, err := first.Run(t.Context(), "ps", "-u", "guest", "-o", "comm=")
		return err == nil && strings.Contains(text, "openbox")
	})
	for _, c := range []struct {
		name     string
		firmware harness.Firmware
		graphics string
		wants    image.Point // zero for any resolution
	}{
		{"vga", harness.BIOS, "VGA,xres=1440,yres=900", image.Pt(1440, 900)},
		{"virtio", harness.BIOS, "virtio-vga,xres=1152,yres=864", image.Pt(1152, 864)},
		{"qxl", harness.BIOS, "qxl-vga", image.Point{}},
		{"uefi", harness.UEFI, "VGA", image.Point{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			vm := start(t, lab, harness.Config{Name: c.name, Memory: 1024, Firmware: c.firmware, Graphics: c.graphics, NICs: nics})
			defer vm.PowerCut()
			showsLogin(t, vm, c.name, c.graphics, c.wants)
		})
	}
}

// showsLogin waits for the login box on a machine's screen.
func showsLogin(t *testing.T, vm *harness.VM, name, graphics string, wants image.Point) {
	t.Helper()
	var picture image.Image
	eventually(t, vm, "the login box on its screen", func() bool {
		var err error
		if picture, err = vm.Screen(t.Context(), "login"); err != nil {
			t.Fatal(err)
		}
		return hasLoginBox(picture)
	})
	size := picture.Bounds().Size()
	if wants != (image.Point{}) && size != wants {
		t.Errorf("%s: the screen has %v, want what it asks for, %v", vm.Name(), size, wants)
	}
	testtable.Table{Name: "desktop", Columns: []string{"machine", "graphics card", "resolution", "seconds from power-on to the login box"}}.
		Add(t, name, graphics, fmt.Sprintf("%dx%d", size.X, size.Y), fmt.Sprintf("%.0f", time.Since(vm.Started()).Seconds()))
}

// hasLoginBox looks for the greeter's box: white, in the middle of a screen that is mostly
// dark. Text and the boot's messages are not so.
func hasLoginBox(picture image.Image) bool {
	all := picture.Bounds()
	middle := all.Min.Add(all.Size().Div(2))
	box := image.Rect(-150, -75, 150, 75).Add(middle).Intersect(all)
	return whiteIn(picture, box) > 0.6 && whiteIn(picture, all) < 0.5
}

// whiteIn is the share of nearly white points.
func whiteIn(picture image.Image, in image.Rectangle) float64 {
	white := 0
	for y := in.Min.Y; y < in.Max.Y; y++ {
		for x := in.Min.X; x < in.Max.X; x++ {
			if r, g, b, _ := picture.At(x, y).RGBA(); min(r, g, b) > 0xe000 {
				white++
			}
		}
	}
	return float64(white) / float64(max(in.Dx()*in.Dy(), 1))
}
