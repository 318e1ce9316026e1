package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"viver.lan/internal/metainfo"
)

// payload is the file that is spread: random bytes in memory.
type payload struct {
	dir     string // holds the file and nothing else; called as the torrent is
	file    string
	torrent string // its metainfo
	pieces  int
	bytes   []byte // the file, mapped
}

const payloadName = "image"

// newPayload makes a file of so many bytes, and its metainfo, below dir.
func newPayload(dir string, size int64) (*payload, error) {
	p := &payload{dir: filepath.Join(dir, payloadName), torrent: filepath.Join(dir, "image.torrent")}
	p.file = filepath.Join(p.dir, "root.squashfs")
	if err := p.make(size); err != nil {
		p.remove()
		return nil, fmt.Errorf("make a file of %d bytes to spread: %w", size, err)
	}
	return p, nil
}

func (p *payload) make(size int64) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(p.file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if p.bytes, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map %s: %w", p.file, err)
	}
	rand.NewChaCha8([32]byte{'v', 'f'}).Read(p.bytes)
	torrent, info, err := metainfo.Create(payloadName, []metainfo.Source{{Name: filepath.Base(p.file), Path: p.file}}, metainfo.DefaultPieceLength, nil)
	if err != nil {
		return err
	}
	p.pieces = info.NumPieces()
	return os.WriteFile(p.torrent, torrent, 0o644)
}

func (p *payload) remove() error {
	if p.bytes != nil {
		unix.Munmap(p.bytes) // cannot fail on what Mmap returned
		p.bytes = nil
	}
	return os.RemoveAll(p.dir)
}
