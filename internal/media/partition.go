package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Partition is a stretch of a disk.
type Partition struct {
	// Number as Linux counts, from 1.
	Number int
	// Offset and Size in bytes.
	Offset, Size int64
}

// sector is the unit of the partition tables on a medium, on a CD as well:
// xorriso writes them for the disk that the same image also is.
const sector = 512

// ErrNoPartitions says that a device has no partition table.
var ErrNoPartitions = errors.New("no partition table")

// Partitions reads the GPT or MBR of a disk of the given size in bytes. What
// lies outside the disk is left out.
func Partitions(r io.ReaderAt, size int64) ([]Partition, error) {
	var mbr [sector]byte
	if err := readAt(r, mbr[:], 0); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil, ErrNoPartitions
	}
	list, err := gpt(r, size)
	if err == nil || !errors.Is(err, ErrNoPartitions) {
		return list, err
	}
	return primaries(mbr[:], size), nil
}

// primaries returns the four entries of an MBR; a medium has no logical ones.
func primaries(mbr []byte, size int64) []Partition {
	const tableAt, entryLen = 446, 16
	var list []Partition
	for i := range 4 {
		e := mbr[tableAt+i*entryLen:][:entryLen]
		p := Partition{
			Number: i + 1,
			Offset: int64(binary.LittleEndian.Uint32(e[8:])) * sector,
			Size:   int64(binary.LittleEndian.Uint32(e[12:])) * sector,
		}
		if e[4] != 0 && p.within(size) {
			list = append(list, p)
		}
	}
	return list
}

// BackupPartitions reads the copy of a GPT at the end of a disk, which is still there
// when something else was written to the beginning.
func BackupPartitions(r io.ReaderAt, size int64) ([]Partition, error) {
	if size < 2*sector {
		return nil, ErrNoPartitions
	}
	return gptAt(r, size, size&^(sector-1)-sector)
}

// gpt reads a GUID partition table (UEFI specification, 5.3).
func gpt(r io.ReaderAt, size int64) ([]Partition, error) { return gptAt(r, size, sector) }

// gptAt reads the table whose header is at that offset.
func gptAt(r io.ReaderAt, size, header int64) ([]Partition, error) {
	const minEntry, maxEntry, maxEntries = 128, 4096, 1024
	var h [92]byte
	if err := readAt(r, h[:], header); err != nil {
		return nil, fmt.Errorf("read GPT: %w", err)
	}
	if string(h[:8]) != "EFI PART" {
		return nil, ErrNoPartitions
	}
	at := binary.LittleEndian.Uint64(h[72:])
	count := binary.LittleEndian.Uint32(h[80:])
	length := binary.LittleEndian.Uint32(h[84:])
	if length < minEntry || length > maxEntry || count > maxEntries || at > uint64(size/sector) {
		return nil, fmt.Errorf("read GPT: %d entries of %d bytes at sector %d cannot be", count, length, at)
	}
	table := make([]byte, int(count)*int(length))
	if err := readAt(r, table, int64(at)*sector); err != nil {
		return nil, fmt.Errorf("read GPT: %w", err)
	}
	var list []Partition
	for i := range int(count) {
		e := table[i*int(length):]
		if [16]byte(e[:16]) == ([16]byte{}) {
			continue
		}
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		if last < first || last >= uint64(size)/sector {
			continue
		}
		p := Partition{Number: i + 1, Offset: int64(first) * sector, Size: int64(last-first+1) * sector}
		if p.within(size) {
			list = append(list, p)
		}
	}
	return list, nil
}

func (p Partition) within(size int64) bool {
	return p.Offset > 0 && p.Size > 0 && p.Offset < size && p.Size <= size-p.Offset
}

// ErrNoSettings says that a medium has no settings volume.
var ErrNoSettings = errors.New("no FAT partition labelled " + SettingsLabel)

// SettingsVolume finds the settings volume on a medium of the given size in
// bytes: the first FAT partition labelled SettingsLabel.
func SettingsVolume(r io.ReaderAt, size int64) (Partition, error) {
	list, err := Partitions(r, size)
	if err != nil {
		return Partition{}, err
	}
	for _, p := range list {
		label, err := FATLabel(r, p.Offset)
		if err == nil && strings.EqualFold(label, SettingsLabel) {
			return p, nil
		}
	}
	return Partition{}, ErrNoSettings
}

// ErrNotFAT says that there is no FAT file system.
var ErrNotFAT = errors.New("no FAT file system")

// FATLabel returns the label in the boot sector of the FAT file system that
// begins at byte offset at.
func FATLabel(r io.ReaderAt, at int64) (string, error) {
	var b [sector]byte
	if err := readAt(r, b[:], at); err != nil {
		return "", fmt.Errorf("read FAT boot sector: %w", err)
	}
	if b[510] != 0x55 || b[511] != 0xaa {
		return "", ErrNotFAT
	}
	// FAT32 keeps the label behind its longer parameter block.
	label, kind := b[43:54], b[54:62]
	if string(b[82:87]) == "FAT32" {
		label, kind = b[71:82], b[82:90]
	}
	if !strings.HasPrefix(string(kind), "FAT") {
		return "", ErrNotFAT
	}
	return strings.TrimRight(string(label), " \x00"), nil
}

// readAt fills p or fails.
func readAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
