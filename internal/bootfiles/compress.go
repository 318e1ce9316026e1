package bootfiles

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/hosttool"
	"viver.lan/kernelconfig"
)

// initramfsLevel is the zstd level of the initramfs, which every machine fetches
// with what its firmware has for a network. 19 takes a third more time for
// 0.6 % less. Above that the window grows, and it must fit into the memory of a
// small machine beside everything else. build.sh packs the Go part with the same.
const initramfsLevel = "-18"

// compressInitramfs writes to w what fill writes, compressed so that the kernel
// can unpack it: zstd, or gzip before Linux 5.9. size is how many bytes that will be,
// 0 if nobody knows; the kernel takes less memory to unpack what says that it is small.
func compressInitramfs(ctx context.Context, w io.Writer, config kernelconfig.Config, size int, fill func(io.Writer) error) error {
	if !takesZstd(config) {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		return fillAndClose(z, fill)
	}
	if program, err := hosttool.Find("zstd"); err == nil {
		return compressWith(ctx, program, w, size, fill)
	}
	// The library's strongest level leaves a seventh more than the program.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	return fillAndClose(z, fill)
}

// takesZstd reports whether a kernel unpacks an initramfs that is packed with zstd.
func takesZstd(config kernelconfig.Config) bool { return config == nil || config["RD_ZSTD"] == "y" }

func fillAndClose(z io.WriteCloser, fill func(io.Writer) error) error {
	if err := fill(z); err != nil {
		return errors.Join(err, z.Close())
	}
	return z.Close()
}

// compressWith lets zstd(1) compress. Its output does not depend on the number
// of processors.
func compressWith(ctx context.Context, program string, w io.Writer, size int, fill func(io.Writer) error) error {
	args := []string{"--quiet", "--stdout", "--threads=0", initramfsLevel}
	if size > 0 {
		args = append(args, fmt.Sprintf("--stream-size=%d", size))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout = w
	return hosttool.Feed(ctx, cmd, fill)
}
