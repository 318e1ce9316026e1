package bootmedium

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/text"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/cmdline"
	"viver.lan/internal/config"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
)

//go:embed grub.cfg.tmpl
var grubTemplate string

//go:embed efi.cfg.tmpl
var efiTemplate string

// image is one that goes onto a medium.
type image struct {
	dir string // where it is
	at  string // where it will be, on the medium
	*manifest.Manifest
}

// verify reads every byte of the images and returns them with their places.
func (c Config) verify(ctx context.Context) ([]image, error) {
	var list []image
	for _, dir := range c.Images {
		task := "verify"
		if len(c.Images) > 1 {
			task += " " + filepath.Base(dir)
		}
		v, err := imagedir.Verify(ctx, dir, c.Owner, func(done, total int64) { c.Progress(task, done, total) })
		if err != nil {
			return nil, err
		}
		if err := v.Err(); err != nil {
			return nil, err
		}
		for _, other := range list {
			switch {
			case other.Infohash == v.Manifest.Infohash:
				return nil, fmt.Errorf("%s and %s are the same image %s: name each image once", other.dir, dir, other.Infohash)
			case other.Name == v.Manifest.Name:
				return nil, fmt.Errorf("%s and %s are both called %s, so the menu cannot tell them apart: build one of them with another name (viver image build -o NAME)", other.dir, dir, other.Name)
			}
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		first := v.Manifest.Infohash
		if len(list) > 0 {
			first = list[0].Infohash
		}
		list = append(list, image{dir, media.ImageDir(first, v.Manifest.Infohash), v.Manifest})
	}
	if len(list) == 0 {
		return nil, errors.New("a medium needs an image")
	}
	return list, nil
}

// content is a file of a medium: where it is and where it will be.
type content struct {
	from, to string
	size     int64 // 0 for small ones
}

// contents are the image's files. File by file, because what else lies in the directory
// is not for everybody's eyes.
func (i image) contents() (list []content) {
	files := append([]manifest.FileInfo{{Name: manifest.File}, {Name: manifest.Signature}, {Name: manifest.Metainfo}}, i.Files...)
	for _, f := range files {
		list = append(list, content{filepath.Join(i.dir, f.Name), "/" + i.at + "/" + f.Name, f.Size})
	}
	return list
}

// initramfs names what the medium's GRUB loads beside the kernel: all drivers,
// because the machine has to find the medium again.
func (i image) initramfs() string {
	var names []string
	for _, name := range []string{manifest.Initramfs, manifest.NICs, manifest.Drivers} {
		if _, _, ok := i.Lookup(name); ok { // older images have fewer files with all of them
			names = append(names, "/"+i.at+"/"+name)
		}
	}
	return strings.Join(names, " ")
}

// menuEntry is what GRUB's menu has of an image.
type menuEntry struct{ ID, Name, Kernel, Initramfs, Medium, Arguments string }

// menu is GRUB's configuration.
type menu struct {
	Entries []menuEntry
	// Default is the entry that starts by itself, Next the one that leaves the medium.
	Default, Next, Timeout int
}

// newMenu has an entry for each image, then one for the console of each, then the one
// that leaves the medium. Where there is one image nothing names it, because the medium
// does.
func newMenu(images []image, id string, settings config.Settings, arguments []string) (menu, error) {
	m := menu{Next: 2 * len(images), Timeout: settings.BootTimeout, Default: -1}
	var names []string
	for i, image := range images {
		suffix, place := "", media.Argument+"="+id
		if len(images) > 1 {
			suffix = fmt.Sprintf("-%d", i+1)
			place += " " + media.ImageArgument + "=" + image.Infohash.String()
		}
		m.Entries = append(m.Entries, menuEntry{
			ID:        suffix,
			Name:      plainTitle(image.Name),
			Kernel:    "/" + image.at + "/" + manifest.Kernel,
			Initramfs: image.initramfs(),
			Medium:    place,
			Arguments: strings.Join(append([]string{cmdline.NoSelfTests}, arguments...), " "),
		})
		names = append(names, image.Name)
		if image.Name == cmp.Or(settings.BootDefault, images[0].Name) {
			m.Default = i
		}
	}
	if m.Default < 0 {
		return m, fmt.Errorf("boot.default is %q, the medium has %s", settings.BootDefault, strings.Join(names, ", "))
	}
	return m, nil
}

// plainTitle keeps an image's name from ending the quotes it stands in.
func plainTitle(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("'\"\\$\n", r) {
			return '_'
		}
		return r
	}, s)
}

// distrusted says which images do not start with Secure Boot on. The medium has one pair
// of boot programs, that of its first image, and a distribution's pair trusts that
// distribution's kernels.
func distrusted(images []image) (notes []string, err error) {
	shim, err := bootProgram(images[0], bootfiles.Shim)
	if err != nil {
		return nil, err
	}
	for _, image := range images[1:] {
		own, err := bootProgram(image, bootfiles.Shim)
		if err != nil {
			return nil, err
		}
		kernel, err := os.ReadFile(filepath.Join(image.dir, manifest.Kernel))
		if err != nil {
			return nil, err
		}
		if bootfiles.Trusts(own, kernel) && !bootfiles.Trusts(shim, kernel) {
			notes = append(notes, fmt.Sprintf("%s: its kernel is signed by another distribution than that of %s, so with Secure Boot on it does not start from this medium; make a medium of its own for such machines",
				image.Name, images[0].Name))
		}
	}
	return notes, nil
}

func bootProgram(i image, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(i.dir, manifest.BootDir, name))
}

func execute(w io.Writer, text string, words any) error {
	t, err := template.New("").Parse(text)
	if err != nil {
		return err
	}
	return t.Execute(w, words)
}
