package bootwork

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// library is an entry of ld.so.cache.
type library struct{ name, path string }

// The file's form (glibc, sysdeps/generic/dl-cache.h): a header, then entries of 24
// bytes, then strings; the entries count from the header where these begin. Until 2.31
// another table of an older form stood before it. Numbers are in the byte order of the
// machine, and images are for amd64.
const (
	cacheMagic     = "glibc-ld.so.cache1.1"
	cacheHeader    = 48
	cacheEntry     = 24
	cacheCountAt   = len(cacheMagic)
	cacheNameAt    = 4 // in an entry
	cachePathAt    = 8
	maxCacheString = 4096
)

var errCache = errors.New("it is not one of glibc, or not whole")

// parseCache reads /etc/ld.so.cache.
func parseCache(data []byte) ([]library, error) {
	at := bytes.Index(data, []byte(cacheMagic))
	if at < 0 || len(data)-at < cacheHeader {
		return nil, errCache
	}
	data = data[at:]
	count := binary.LittleEndian.Uint32(data[cacheCountAt:])
	if uint64(count) > uint64(len(data)-cacheHeader)/cacheEntry {
		return nil, errCache
	}
	list := make([]library, 0, count)
	for i := range int(count) {
		entry := data[cacheHeader+i*cacheEntry:]
		name, ok := cacheString(data, binary.LittleEndian.Uint32(entry[cacheNameAt:]))
		path, ok2 := cacheString(data, binary.LittleEndian.Uint32(entry[cachePathAt:]))
		if !ok || !ok2 {
			return nil, errCache
		}
		list = append(list, library{name, path})
	}
	return list, nil
}

// cacheString returns the string at a place, which ends with a zero.
func cacheString(data []byte, at uint32) (string, bool) {
	if uint64(at) >= uint64(len(data)) {
		return "", false
	}
	rest := data[at:min(len(data), int(at)+maxCacheString)]
	end := bytes.IndexByte(rest, 0)
	if end < 0 {
		return "", false
	}
	return string(rest[:end]), true
}
