package squashmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxCached bounds the blocks of tables that are kept: 32 MiB.
const maxCached = 4096

// tables reads the blocks that tables are made of.
type tables struct {
	r      io.ReaderAt
	super  superblock
	zstd   *zstd.Decoder
	blocks map[int64]metadata
}

// metadata is a block of a table.
type metadata struct {
	data []byte
	next int64 // where the following block begins
}

func newTables(r io.ReaderAt, super superblock) (*tables, error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	return &tables{r: r, super: super, zstd: decoder, blocks: make(map[int64]metadata)}, nil
}

func (t *tables) close() { t.zstd.Close() }

// readAt returns size bytes at a place.
func (t *tables) readAt(at int64, size int) ([]byte, error) {
	if at < 0 || at > t.super.bytesUsed-int64(size) {
		return nil, errors.New("a table lies beyond the end")
	}
	b := make([]byte, size)
	if n, err := t.r.ReadAt(b, at); n < size {
		return nil, err
	}
	return b, nil
}

// block returns the block of a table that begins at a place.
func (t *tables) block(at int64) (metadata, error) {
	if m, ok := t.blocks[at]; ok {
		return m, nil
	}
	head, err := t.readAt(at, 2)
	if err != nil {
		return metadata{}, err
	}
	size, compressed := parseMetadataHead(head)
	data, err := t.readAt(at+2, size)
	if err != nil {
		return metadata{}, err
	}
	if compressed {
		if data, err = t.zstd.DecodeAll(data, make([]byte, 0, metadataSize)); err != nil {
			return metadata{}, fmt.Errorf("a block of a table: %w", err)
		}
	}
	if len(data) == 0 || len(data) > metadataSize {
		return metadata{}, fmt.Errorf("a block of a table has %d bytes", len(data))
	}
	if len(t.blocks) >= maxCached {
		clear(t.blocks)
	}
	m := metadata{data, at + 2 + int64(size)}
	t.blocks[at] = m
	return m, nil
}

// parseMetadataHead returns how many bytes follow, and whether they are compressed.
func parseMetadataHead(b []byte) (size int, compressed bool) {
	head := binary.LittleEndian.Uint16(b)
	return int(head &^ (1 << 15)), head&(1<<15) == 0
}

// fragment returns where fragment i lies.
func (t *tables) fragment(i uint32) (Block, error) {
	if i >= t.super.fragments {
		return Block{}, fmt.Errorf("there is no fragment %d", i)
	}
	s, err := t.indexed(t.super.fragmentTable, int(i), fragmentSize)
	if err != nil {
		return Block{}, err
	}
	at, raw := s.u64(), s.u32()
	size := int64(storedSize(raw))
	if s.err == nil && (size == 0 || size > t.super.bytesUsed || at > uint64(t.super.bytesUsed-size)) {
		s.err = fmt.Errorf("fragment %d lies beyond the end", i)
	}
	return Block{int64(at), raw}, s.err
}

func parsePointer(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }

// stream reads a table from a place on. After an error all that it reads is 0.
type stream struct {
	tables *tables
	rest   []byte // of the present block
	after  int64  // place of the one that follows
	err    error
}

// stream begins offset bytes into the block that is block bytes behind a table's start.
func (t *tables) stream(table, block int64, offset int) *stream {
	s := &stream{tables: t, after: table + block}
	s.load()
	if offset > len(s.rest) {
		s.fail(errors.New("a place in a table is beyond its block"))
		return s
	}
	s.rest = s.rest[offset:]
	return s
}

func (s *stream) fail(err error) {
	if s.err == nil {
		s.err, s.rest = err, nil
	}
}

// load goes to the following block.
func (s *stream) load() {
	m, err := s.tables.block(s.after)
	if err != nil {
		s.fail(err)
		return
	}
	s.rest, s.after = m.data, m.next
}

// next returns the following n bytes.
func (s *stream) next(n int) []byte {
	out := make([]byte, 0, n)
	for s.err == nil && len(out) < n {
		if len(s.rest) == 0 {
			s.load()
		}
		part := s.rest[:min(n-len(out), len(s.rest))]
		out, s.rest = append(out, part...), s.rest[len(part):]
	}
	if s.err != nil {
		return make([]byte, n)
	}
	return out
}

func (s *stream) skip(n int)  { s.next(n) }
func (s *stream) u16() uint16 { return binary.LittleEndian.Uint16(s.next(2)) }
func (s *stream) u32() uint32 { return binary.LittleEndian.Uint32(s.next(4)) }
func (s *stream) u64() uint64 { return binary.LittleEndian.Uint64(s.next(8)) }
