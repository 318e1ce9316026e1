package imagesource

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"

	"viver.lan/internal/diskroot"
	"viver.lan/internal/durable"
	"viver.lan/internal/exclude"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/imagetree"
)

// isOnDisk reports whether a kind is for package diskroot, which says itself how what is
// encrypted or a part of something becomes a source.
func isOnDisk(k Kind) bool {
	switch k {
	case kindGPT, kindMBR, kindExt, kindXFS, kindBtrfs, kindF2FS, kindJFS, kindErofs, kindSquashfs, kindLUKS, kindLVM, kindRAID:
		return true
	}
	return false
}

// openDisk mounts the installed Linux of a disk.
func (s *Source) openDisk(ctx context.Context, f *os.File, o Options, kind string) error {
	if o.Ref != "" {
		return fmt.Errorf("--ref %s: the source is not an archive or a layout of container images", o.Ref)
	}
	root, err := diskroot.Open(ctx, f, o.Work, diskroot.Options{Root: o.Root, Passphrase: o.Passphrase})
	if err != nil {
		return fmt.Errorf("it is %s: %w", kind, err)
	}
	s.closeLater(root)
	s.Kind, s.Notes = kind+": "+root.Kind, root.Notes
	s.scan = func(ctx context.Context, choice *exclude.Choice, skip []string) (tree *imagetree.Tree, err error) {
		err = root.Do(func(dir string) (err error) {
			tree, err = imagetree.Scan(ctx, dir, choice, skip...)
			return err
		})
		return tree, err
	}
	return nil
}

// qemuFormats are what QEMU calls the disks of virtual machines.
func qemuFormats() map[Kind]string {
	return map[Kind]string{kindQcow2: "qcow2", kindVMDK: "vmdk", kindVDI: "vdi", kindVHDX: "vhdx", kindVHD: "vpc"}
}

func isVirtual(k Kind) bool { return qemuFormats()[k] != "" }

// convert has qemu-img write the disk of a virtual machine as it is, into a file without a
// name. Of the disk no other file may be a part: a stranger's could name any of this machine.
func convert(ctx context.Context, dir string, room *allowance, kind Kind, from *os.File) (*os.File, error) {
	const source, target = "/dev/fd/3", "/dev/fd/4"
	format := qemuFormats()[kind]
	out, err := hosttool.Output(ctx, []*os.File{from}, "qemu-img", "info", "--output=json", "-f", format, source)
	if err != nil {
		return nil, fmt.Errorf("it is %s: %w", kind, explainQEMU(err))
	}
	size, err := parseInfo(out, source)
	if err != nil {
		return nil, fmt.Errorf("it is %s %w; make one file of it: qemu-img convert -O qcow2 DISK FILE", kind, err)
	}
	if err := checkVirtual(ctx, format, from); err != nil {
		return nil, fmt.Errorf("it is %s that is damaged or was cut off: %w", kind, err)
	}
	if err := takeVirtual(ctx, room, format, from); err != nil {
		return nil, fmt.Errorf("it is %s: %w", kind, err)
	}
	to, err := unnamed(dir)
	if err != nil {
		return nil, err
	}
	if err = to.Truncate(size); err == nil {
		_, err = hosttool.Output(ctx, []*os.File{from, to}, "qemu-img", "convert", "-f", format, "-O", "raw", "-n", "--target-is-zero", "-S", "64k", source, target)
	}
	if err != nil {
		return nil, errors.Join(durable.ExplainSpace(fmt.Errorf("it is %s: %w", kind, explainQEMU(err)), dir), to.Close())
	}
	return to, nil
}

// takeVirtual takes from room what qemu-img convert is going to write. Of a VHDX disk that is all its size,
// because QEMU does not know what of it is zeros.
func takeVirtual(ctx context.Context, room *allowance, format string, f *os.File) error {
	program, err := hosttool.Find("qemu-img")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "map", "--output=json", "-f", format, "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	taken := takeMap(out, room)
	if taken != nil {
		_ = cmd.Process.Kill() // a map may have more lines than anybody can wait for
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(taken, errBomb):
		return taken
	case err != nil:
		return fmt.Errorf("qemu-img map: %w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return taken
}

// takeMap takes from room what a map by qemu-img says is data.
func takeMap(r io.Reader, room *allowance) error {
	d := json.NewDecoder(r)
	if _, err := d.Token(); err != nil { // it begins a list
		return fmt.Errorf("what qemu-img map says is no list: %w", err)
	}
	for d.More() {
		var extent struct {
			Length     int64
			Zero, Data bool
		}
		if err := d.Decode(&extent); err != nil {
			return fmt.Errorf("what qemu-img map says is no list of extents: %w", err)
		}
		if extent.Length < 0 {
			return fmt.Errorf("qemu-img map says that there are %d bytes", extent.Length)
		}
		if extent.Data && !extent.Zero {
			if err := room.take(extent.Length); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkVirtual finds what qemu-img convert would read as zeros: what lies behind the end of a file
// that was cut off.
func checkVirtual(ctx context.Context, format string, f *os.File) error {
	const leaks, unsupported = 3, 63 // space that is lost, and formats of which it knows no check
	_, err := hosttool.Output(ctx, []*os.File{f}, "qemu-img", "check", "-f", format, "/dev/fd/3")
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == leaks || exit.ExitCode() == unsupported) {
		err = nil
	}
	if err != nil || format != qemuFormats()[kindVDI] {
		return err
	}
	head := make([]byte, vdiHeader)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if end := vdiEnd(head); size < end {
		return fmt.Errorf("it has %d bytes, want %d", size, end)
	}
	return nil
}

// vdiHeader is how much of a VDI disk vdiEnd needs, in bytes.
const vdiHeader = 0x188

// vdiEnd returns how long a VDI disk has to be, by its header (VirtualBox, VDICore.h): qemu-img does
// not check that.
func vdiEnd(head []byte) int64 {
	if len(head) < vdiHeader {
		return 0
	}
	data, block, allocated := binary.LittleEndian.Uint32(head[0x158:]), binary.LittleEndian.Uint32(head[0x178:]), binary.LittleEndian.Uint32(head[0x184:])
	const largestBlock = 1 << 30
	if block > largestBlock {
		return math.MaxInt64
	}
	return int64(data) + int64(block)*int64(allocated)
}

// explainQEMU says what to do when there is no qemu-img.
func explainQEMU(err error) error {
	if _, missing := hosttool.Find("qemu-img"); missing != nil {
		return fmt.Errorf("%w: install it (Debian: qemu-utils)", missing)
	}
	return err
}

// parseInfo takes the size of a disk, in bytes, from what qemu-img says of the file called source.
func parseInfo(out []byte, source string) (int64, error) {
	var info struct {
		Size     int64  `json:"virtual-size"`
		Backing  string `json:"backing-filename"`
		Specific struct {
			Data struct {
				DataFile string `json:"data-file"`
				Extents  []struct {
					Filename string `json:"filename"`
				} `json:"extents"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return 0, fmt.Errorf("of which qemu-img says nothing: %w", err)
	}
	const largest = 1 << 46 // 64 TiB: more than any file system here can hold as one file
	others := []string{info.Backing, info.Specific.Data.DataFile}
	for _, e := range info.Specific.Data.Extents {
		others = append(others, e.Filename)
	}
	for _, name := range others {
		if name != "" && name != source {
			return 0, fmt.Errorf("that is only a part: it needs the file %q", name)
		}
	}
	if info.Size < 0 || info.Size > largest {
		return 0, fmt.Errorf("of %d bytes", info.Size)
	}
	return info.Size, nil
}
