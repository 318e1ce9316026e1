package event

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// OpenPort opens the virtio-serial port called name, on which a virtual
// machine's host may listen to events (virtio specification 1.2, section 5.3).
// sys and dev are the mount points of sysfs and devtmpfs. A machine without
// the port gives an error that wraps os.ErrNotExist.
func OpenPort(sys, dev, name string) (io.WriteCloser, error) {
	port, err := FindPort(sys, dev, name)
	if err != nil {
		return nil, fmt.Errorf("open virtio-serial port %s: %w", name, err)
	}
	f, err := os.OpenFile(port, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open virtio-serial port %s: %w", name, err)
	}
	return f, nil
}

// FindPort returns the path of the virtio-serial port called name, or an error
// that wraps os.ErrNotExist.
func FindPort(sys, dev, name string) (string, error) {
	files, err := filepath.Glob(filepath.Join(sys, "class/virtio-ports/*/name"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		found, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(found)) != name {
			continue
		}
		return filepath.Join(dev, filepath.Base(filepath.Dir(file))), nil
	}
	return "", os.ErrNotExist
}

// PortName returns the name of the port on which a program reports its events.
// Each program has its own because a port has one opener at a time.
func PortName(program string) string { return "viver.events." + program }
