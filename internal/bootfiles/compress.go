package bootfiles

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/hosttool"
	"viver.lan/kernelconfig"
)

// effort is what zstd(1) is told. What is packed here is packed for each image, beside
// mksquashfs, which has work for all processors, so each second of it is one more for who
// makes an image; what is the same for all images build.sh has packed at level 18.
type effort string

const (
	// forFirmware is for what machines fetch with what their firmware has for a network.
	// It leaves 2.4 % more than level 18 does, in half of the time. Above level 18 the
	// window grows, and it must fit into the memory of a small machine beside everything
	// else.
	forFirmware effort = "-18 --zstd=strategy=7,searchLog=3"
	// forSwarm is for what they fetch at the speed of their wire: a tenth more than
	// level 18, in a seventh of the time.
	forSwarm effort = "-12"
)

// compressInitramfs writes to w what fill writes, compressed so that the kernel
// can unpack it: zstd, or gzip before Linux 5.9. size is how many bytes that will be,
// 0 if nobody knows; the kernel takes less memory to unpack what says that it is small.
func compressInitramfs(ctx context.Context, w io.Writer, config kernelconfig.Config, e effort, size int, fill func(io.Writer) error) error {
	if !takesZstd(config) {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		return fillAndClose(z, fill)
	}
	if program, err := hosttool.Find("zstd"); err == nil {
		return compressWith(ctx, program, w, e, size, fill)
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
func compressWith(ctx context.Context, program string, w io.Writer, e effort, size int, fill func(io.Writer) error) error {
	args := append([]string{"--quiet", "--stdout", "--threads=0"}, strings.Fields(string(e))...)
	if size > 0 {
		args = append(args, fmt.Sprintf("--stream-size=%d", size))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout = w
	return hosttool.Feed(ctx, cmd, fill)
}
