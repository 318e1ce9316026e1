package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// MaxPorts bounds what is kept open for runes, of each protocol.
const MaxPorts = 64

// Ports are those that services of runes listen on here, and that machines of the boot
// network may use.
type Ports struct {
	TCP []uint16 `json:"tcp,omitempty"`
	UDP []uint16 `json:"udp,omitempty"`
}

// ReadPorts reads the file that WriteState wrote them to. Without the file there are none.
func ReadPorts(path string) (p Ports, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err == nil && max(len(p.TCP), len(p.UDP)) > MaxPorts {
		err = fmt.Errorf("%d and %d ports, %d of each at most", len(p.TCP), len(p.UDP), MaxPorts)
	}
	if err != nil {
		return Ports{}, fmt.Errorf("read the ports of runes: %s: %w", path, err)
	}
	return p, nil
}
