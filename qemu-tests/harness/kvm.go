package harness

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// probeDeadline is what the probe guest may take. With KVM it needs a few
	// tenths of a second, under TCG about half of one. Where KVM hangs, all of it
	// passes before the first machine starts.
	probeDeadline = 20 * time.Second
	// probeExit is QEMU's exit code after the guest wrote 0x2a to the
	// isa-debug-exit device: (0x2a << 1) | 1.
	probeExit = 0x2a<<1 | 1
)

// probeSector is a boot sector. That /dev/kvm opens says nothing: there are
// machines whose KVM emulates every instruction, or hangs at the first
// interrupt. So this guest does once what a kernel does all the time, waits
// for a timer interrupt, turns on paging and long mode, and counts to 10^8.
func probeSector() ([]byte, error) {
	code := strings.Join([]string{
		"fa", "31c0", "8ed8", "8ec0", "8ed0", // cli; ds = es = ss = 0
		"bc007c",             // mov $0x7c00, %sp
		"fb",                 // sti
		"a16c04",             // mov 0x46c, %ax: the BIOS's tick counter
		"f4",                 // 1: hlt
		"3b066c04",           // cmp 0x46c, %ax
		"74f9",               // je 1b
		"fa",                 // cli
		"66bf00100000",       // mov $0x1000, %edi: three empty page tables
		"6631c0",             // xor %eax, %eax
		"66b9000c0000",       // mov $0xc00, %ecx
		"66f3ab",             // rep stosl
		"66c706001003200000", // movl $0x2003, 0x1000
		"66c706002003300000", // movl $0x3003, 0x2000
		"66c706003083000000", // movl $0x83, 0x3000: 2 MiB, identity
		"66b820000000",       // mov $0x20, %eax
		"0f22e0",             // mov %eax, %cr4: PAE
		"66b800100000",       // mov $0x1000, %eax
		"0f22d8",             // mov %eax, %cr3
		"66b9800000c0",       // mov $0xc0000080, %ecx
		"0f32",               // rdmsr
		"660d00010000",       // or $0x100, %eax: EFER.LME
		"0f30",               // wrmsr
		"0f0116b87c",         // lgdt 0x7cb8
		"0f20c0",             // mov %cr0, %eax
		"660d01000080",       // or $0x80000001, %eax: paging, protection
		"0f22c0",             // mov %eax, %cr0
		"ea7d7c0800",         // ljmp $8, $0x7c7d
		"b810000000",         // mov $0x10, %eax (64-bit from here)
		"8ed8", "8ed0",       // ds = ss = data
		"b900e1f505", // mov $100000000, %ecx
		"ffc9",       // 2: dec %ecx
		"75fc",       // jnz 2b
		"b02a",       // mov $0x2a, %al
		"e6f4",       // out %al, $0xf4
		"f4", "ebfd", // 3: hlt; jmp 3b
	}, "")
	const gdt = "0000000000000000" + "00000000009a2000" + "0000000000920000" + // 0x7ca0: null, code, data
		"1700a07c0000" // 0x7cb8: limit and address of the table
	const gdtAt = 0xa0
	sector := make([]byte, 512)
	for at, text := range map[int]string{0: code, gdtAt: gdt, 510: "55aa"} {
		b, err := hex.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("boot sector at %#x: %w", at, err)
		}
		if at == 0 && len(b) > gdtAt {
			return nil, fmt.Errorf("boot sector: %d bytes of code run into the table at %#x", len(b), gdtAt)
		}
		copy(sector[at:], b)
	}
	return sector, nil
}

// probeGuest boots the probe with an accelerator and says why it did not
// work.
func probeGuest(ctx context.Context, qemu, accel string) error {
	sector, err := probeSector()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "viver-probe-")
	if err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "probe.img")
	// SeaBIOS wants a disk of at least one cylinder.
	if err := os.WriteFile(disk, append(sector, make([]byte, 1<<20-len(sector))...), 0o600); err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeDeadline)
	defer cancel()
	args := []string{"-no-user-config", "-nodefaults", "-display", "none",
		"-machine", "pc,accel=" + accel, "-m", "16",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=4",
		"-drive", "if=ide,format=raw,file=" + escape(disk)}
	if accel == "kvm" {
		args = append(args, "-cpu", "host")
	}
	cmd := exec.CommandContext(ctx, qemu, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == probeExit:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("probe %s: the guest was not done after %v", accel, probeDeadline)
	}
	return fmt.Errorf("probe %s: %v: %s", accel, err, strings.TrimSpace(complaints.String()))
}

// Accelerator says how machines will run, "kvm" or "tcg", and why. The answer
// holds until the host boots again and is kept in the temporary directory.
// The environment variable VIVER_ACCEL overrides it.
func Accelerator(ctx context.Context, qemu string) (accel, why string) {
	if forced := os.Getenv("VIVER_ACCEL"); forced == "kvm" || forced == "tcg" {
		return forced, "VIVER_ACCEL says so"
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", "KVM cannot be used: " + err.Error()
	}
	kvm.Close()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = []byte("unknown")
	}
	cache := filepath.Join(os.TempDir(), fmt.Sprintf("viver-kvm-%d-%s", os.Getuid(), bytes.TrimSpace(boot)))
	if known, ok := readOwn(cache); ok {
		accel, why, _ = strings.Cut(known, " ")
		return accel, why
	}
	accel, why = "kvm", "a guest boots under KVM"
	if err := probeGuest(ctx, qemu, "kvm"); err != nil {
		if ctx.Err() != nil {
			return "tcg", err.Error()
		}
		accel, why = "tcg", err.Error()
	}
	// Without the cache the next run probes again, nothing worse.
	if f, err := os.CreateTemp("", "viver-kvm-*.new"); err == nil {
		_, werr := f.WriteString(accel + " " + why)
		if f.Close() != nil || werr != nil || os.Rename(f.Name(), cache) != nil {
			_ = os.Remove(f.Name())
		}
	}
	return accel, why
}

// readOwn reads a small file of ours; a stranger's file of that name does not
// count.
func readOwn(path string) (string, bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() {
		return "", false
	}
	buf := make([]byte, 512)
	n, _ := f.Read(buf)
	text := string(buf[:n])
	return text, strings.HasPrefix(text, "kvm ") || strings.HasPrefix(text, "tcg ")
}
