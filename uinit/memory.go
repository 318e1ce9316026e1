package main

import (
	"viver.lan/internal/disks"
)

const (
	// systemMemory stays for the booted system, whatever the settings say.
	systemMemory = 128 << 20
	// leastPieces is the least that reading pieces needs.
	leastPieces = 16 << 20
)

// pieceMemory returns how many bytes pieces of the image may take of the
// machine's memory: the share that the settings say and what the system can
// spare, and never more than there is to keep.
func pieceMemory(memory int64, percent int, image int64) int64 {
	return min(image, max(leastPieces, min(memory/100*int64(percent), memory-systemMemory)))
}

// useCache mounts a cache disk, if it holds more than memory would. It returns a note
// for the log, "" when there is no such disk.
func (n *node) useCache() string {
	if len(n.caches) == 0 || n.boot.Cache != "" || n.vfieldStart == nil {
		return ""
	}
	cache, err := disks.MountCache(n.host, n.caches, n.image.Infohash.String(), n.image.Size(), n.boot.Memory, cacheDir)
	if err != nil {
		n.log.Warn("pieces stay in memory", "error", err)
		return "; " + err.Error()
	}
	n.boot.Cache, n.boot.CacheBudget = cache.File, cache.Budget
	return "; pieces go to " + cache.Device
}
