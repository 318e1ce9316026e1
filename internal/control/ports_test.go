package control

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPorts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ports.json")
	if p, err := ReadPorts(path); err != nil || len(p.TCP)+len(p.UDP) > 0 {
		t.Errorf("without the file: %v, %v", p, err)
	}
	if err := WriteState(path, Ports{TCP: []uint16{2049}}); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPorts(path); err != nil || !slices.Equal(p.TCP, []uint16{2049}) || len(p.UDP) > 0 {
		t.Errorf("read back: %v, %v", p, err)
	}
	if err := WriteState(path, Ports{UDP: make([]uint16, MaxPorts+1)}); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPorts(path); err == nil || len(p.UDP) > 0 {
		t.Errorf("too many: %d, %v", len(p.UDP), err)
	}
	if err := os.WriteFile(path, []byte(`{"tcp": [70000]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPorts(path); err == nil || len(p.TCP) > 0 {
		t.Errorf("no port: %v, %v", p, err)
	}
}
