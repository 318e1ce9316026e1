package metainfo

import (
	"bufio"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/anacrolix/torrent/bencode"
	ametainfo "github.com/anacrolix/torrent/metainfo"
)

// Source is a file that goes into a payload.
type Source struct {
	// Name is the slash-separated path inside the image directory.
	Name string
	// Path is where the bytes are now.
	Path string
}

// Create hashes the files in the given order and returns the metainfo file
// and its parsed form. progress, when not nil, is told the number of bytes
// hashed so far. A file that changes its size meanwhile is an error.
func Create(name string, files []Source, pieceLength int64, progress func(done int64)) ([]byte, *Info, error) {
	torrent, info, err := create(name, files, pieceLength, progress)
	if err != nil {
		return nil, nil, fmt.Errorf("make metainfo of %s: %w", name, err)
	}
	return torrent, info, nil
}

func create(name string, files []Source, pieceLength int64, progress func(int64)) ([]byte, *Info, error) {
	if err := CheckPieceLength(pieceLength); err != nil {
		return nil, nil, err
	}
	raw := ametainfo.Info{Name: name, PieceLength: pieceLength}
	h := pieceHasher{length: pieceLength, progress: progress}
	for _, f := range files {
		size, err := h.add(f.Path)
		if err != nil {
			return nil, nil, err
		}
		raw.Files = append(raw.Files, ametainfo.FileInfo{Path: strings.Split(f.Name, "/"), Length: size})
	}
	raw.Pieces = h.finish()

	infoBytes, err := bencode.Marshal(raw)
	if err != nil {
		return nil, nil, err
	}
	// No announce, no creation date: the same files give the same bytes.
	torrent, err := bencode.Marshal(ametainfo.MetaInfo{InfoBytes: infoBytes, CreatedBy: "VIVER"})
	if err != nil {
		return nil, nil, err
	}
	// What we write has to pass what we demand when reading.
	info, err := parse(torrent)
	return torrent, info, err
}

// pieceHasher cuts a stream of files into pieces and hashes each.
type pieceHasher struct {
	length   int64
	progress func(int64)

	piece  []byte // bytes of the unfinished piece
	hashes []byte
	done   int64
}

func (h *pieceHasher) add(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	if h.piece == nil {
		h.piece = make([]byte, 0, h.length)
	}
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		n, err := io.ReadFull(r, h.piece[len(h.piece):h.length])
		h.piece = h.piece[:len(h.piece)+n]
		size += int64(n)
		h.done += int64(n)
		if int64(len(h.piece)) == h.length {
			h.cut()
		}
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			if size != st.Size() {
				return 0, fmt.Errorf("%s changed while it was read: %d bytes became %d", path, st.Size(), size)
			}
			return size, nil
		case err != nil:
			return 0, err
		}
	}
}

func (h *pieceHasher) cut() {
	sum := sha1.Sum(h.piece)
	h.hashes = append(h.hashes, sum[:]...)
	h.piece = h.piece[:0]
	if h.progress != nil {
		h.progress(h.done)
	}
}

func (h *pieceHasher) finish() []byte {
	if len(h.piece) > 0 {
		h.cut()
	}
	return h.hashes
}
