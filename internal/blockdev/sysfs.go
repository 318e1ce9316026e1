package blockdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// blockSize returns the largest block size up to a page that divides size; the
// driver cuts off what does not fill a block.
func blockSize(size int64) int64 {
	for b := int64(4096); b > 512; b /= 2 {
		if size%b == 0 {
			return b
		}
	}
	return 512
}

func sysfsPath(c Config, parts ...string) string {
	return filepath.Join(append([]string{c.Root, "/sys/block", name(c.Index)}, parts...)...)
}

// tune sets the queue's limits for a device whose reads cost far more each than per
// byte. The device also works without.
func (d *Device) tune() {
	if err := tune(d.config); err != nil {
		d.config.Log.Warn("block device keeps its default queue settings", "device", d.Path(), "error", err)
	}
}

func tune(c Config) error {
	var errs []error
	for file, value := range map[string]int{"read_ahead_kb": c.ReadAheadKB, "max_sectors_kb": c.MaxSectorsKB} {
		// No O_CREAT: a file that is not there is a setting the kernel lacks.
		f, err := os.OpenFile(sysfsPath(c, "queue", file), os.O_WRONLY|os.O_TRUNC, 0)
		if err == nil {
			_, err = f.WriteString(strconv.Itoa(value))
			err = errors.Join(err, f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sameVolume makes sure that a device connected already is our volume.
func sameVolume(c Config) error {
	text, err := os.ReadFile(sysfsPath(c, "size"))
	if err != nil {
		return fmt.Errorf("it is connected, and its size cannot be read: %w", err)
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return fmt.Errorf("it is connected, and its size is %q: %w", text, err)
	}
	if size := sectors * 512; size != c.Size {
		return fmt.Errorf("it is connected to a volume of %d bytes, ours has %d: not taken over", size, c.Size)
	}
	text, err = os.ReadFile(sysfsPath(c, "backend"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // attached without an identity, or by a kernel that keeps none
	}
	if err != nil {
		return fmt.Errorf("it is connected, and its identity cannot be read: %w", err)
	}
	if identity := strings.TrimRight(string(text), "\n"); identity != c.Identity {
		return fmt.Errorf("it is connected to the volume %q, ours is %q: not taken over", identity, c.Identity)
	}
	return nil
}
