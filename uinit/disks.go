package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"viver.lan/internal/disks"
)

// Where file systems are mounted while the initramfs is the root.
const (
	mediumDir  = "/medium"
	inspectDir = "/inspect"
	cacheDir   = "/cache"
)

// disks searches for marked disks, read-only. The root stage mounts them for writing,
// when the image's digest is known.
func (n *node) disks(ctx context.Context) (string, error) {
	if !n.settings.UseDisks {
		return "not searched: the settings say so", nil
	}
	survey, err := disks.Search(ctx, n.host, inspectDir, n.mediumDisk)
	if err != nil || tooLate(ctx) {
		return "", cmp.Or(err, errHangs)
	}
	for _, note := range survey.Notes {
		n.log.Info("disks: " + note)
	}
	n.found, n.caches = survey.Found, survey.Caches
	detail := marked(disks.Marker, n.found) + marked(disks.CacheMarker, n.caches)
	if detail == "" {
		return "no disk has a folder " + disks.Marker + " or " + disks.CacheMarker + ", none is touched", nil
	}
	return strings.TrimPrefix(detail, "; "), nil
}

// marked lists the disks with a marker.
func marked(marker string, found []disks.Found) string {
	if len(found) == 0 {
		return ""
	}
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = fmt.Sprintf("%s (%s)", f.Device.Name, f.FS.Type)
	}
	return "; a folder " + marker + " on " + strings.Join(names, ", ")
}
