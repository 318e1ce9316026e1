package imagebuild

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/manifest"
)

// ReportFile lists, in an image's directory, what the image has otherwise than its
// source, each with its size and the reason. It is for whoever built the image
// and is no part of it.
const ReportFile = "report.json"

// OldReportFile is what earlier versions wrote for that.
const OldReportFile = "report.txt"

// maxReport is more bytes than the report of the largest system has.
const maxReport = 64 << 20

// ReadReport reads the report of an image.
func ReadReport(image string) (*imagetree.Report, error) {
	f, err := os.Open(filepath.Join(image, ReportFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(image, manifest.File)); err != nil {
			return nil, fmt.Errorf("no image: %w", err)
		}
		return nil, fmt.Errorf("%s has no %s: it was copied without it, or built by an earlier viver (see "+OldReportFile+" there)", image, ReportFile)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReport))
	if err != nil {
		return nil, err
	}
	r, err := imagetree.ParseReport(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return r, nil
}
