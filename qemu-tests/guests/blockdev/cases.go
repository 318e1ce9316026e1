package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/blockdev"
)

// timeout of the kernel's patience with one connection in these tests.
const timeout = 2 * time.Second

var ours = settings{Identity: "cafe0123", Timeout: timeout, Connections: 2}

// bench is what the cases share: the device and its daemon of the moment.
type bench struct {
	volume *volume
	daemon *daemon
	digest string // of the tree in the image, read while nothing was wrong
}

// cases in the order in which they run; each leaves the device attached and
// served, but for the last.
var cases = []struct {
	name string
	run  func(*bench) (detail string, err error)
}{
	{"settings", (*bench).settings},
	{"concurrent", (*bench).concurrent},
	{"sequential", (*bench).sequential},
	{"mount", (*bench).mount},
	{"queue", (*bench).queue},
	{"drop", (*bench).drop},
	{"kill", (*bench).kill},
	{"absence", (*bench).absence},
	{"stall", (*bench).stall},
	{"freeze", (*bench).freeze},
	{"broken", (*bench).broken},
	{"stranger", (*bench).stranger},
	{"detach", (*bench).detach},
	{"lost", (*bench).lost},
}

// prepare attaches the device for the first time.
func (b *bench) prepare() (string, error) {
	if err := prepareMachine(); err != nil {
		return "", err
	}
	var err error
	if b.volume, err = openVolume(); err != nil {
		return "", err
	}
	if up, err := blockdev.Connected(0); err != nil || up {
		return "", fmt.Errorf("before anything is attached: connected %v, %v", up, err)
	}
	if b.daemon, err = startDaemon(ours); err != nil {
		return "", err
	}
	if b.daemon.again {
		return "", errors.New("a first attachment passes for a second")
	}
	return "", b.probe()
}

func (b *bench) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return blockdev.Probe(ctx, "/dev/nbd0", volumeSize)
}

// restart brings the daemon back after a kill; it must take the device over.
func (b *bench) restart() (err error) {
	if b.daemon, err = startDaemon(ours); err == nil && !b.daemon.again {
		err = errors.New("the device was gone when the daemon came back")
	}
	return err
}

// settings: what the kernel now says of the device, once the daemon, which
// makes some of them while it serves, had its time.
func (b *bench) settings() (string, error) {
	var err error
	for range 100 {
		if err = checkSettings(); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", err
}

func checkSettings() error {
	var errs []error
	for file, want := range map[string]string{
		"ro": "1", "size": fmt.Sprint(volumeSize / 512), "backend": ours.Identity,
		"queue/logical_block_size": "4096", "queue/read_ahead_kb": "16", "queue/max_sectors_kb": "512",
	} {
		text, err := os.ReadFile("/sys/block/nbd0/" + file)
		if got := strings.TrimSpace(string(text)); err != nil || got != want {
			errs = append(errs, fmt.Errorf("%s is %q, want %q (%v)", file, got, want, err))
		}
	}
	if extra, _ := filepath.Glob("/sys/block/nbd[1-9]*"); len(extra) > 0 {
		errs = append(errs, fmt.Errorf("devices nobody asked for: %v", extra))
	}
	return errors.Join(errs...)
}

// concurrent: 16 readers of a backend that takes 20 ms are served side by side.
func (b *bench) concurrent() (string, error) {
	if _, err := b.daemon.order("delay 20ms"); err != nil {
		return "", err
	}
	b.daemon.order("stats")
	began := time.Now()
	err := readRandom(b.volume, 16, 400)
	took := time.Since(began)
	stats, statsErr := b.daemon.order("stats")
	_, delayErr := b.daemon.order("delay 0s")
	if err == nil && stats.Most < 12 {
		err = fmt.Errorf("at most %d reads of 16 were with the backend at once", stats.Most)
	}
	return fmt.Sprintf("400 x 4K, 16 readers, 20 ms backend: %.2f s, %d reads at once", took.Seconds(), stats.Most), errors.Join(err, statsErr, delayErr)
}

// sequential: the whole device through the page cache, in order.
func (b *bench) sequential() (string, error) {
	if err := dropCaches(); err != nil {
		return "", err
	}
	before, err := b.daemon.order("stats")
	if err != nil {
		return "", err
	}
	f, err := os.Open("/dev/nbd0")
	if err != nil {
		return "", err
	}
	defer f.Close()
	began := time.Now()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < volumeSize; off += int64(len(buf)) {
		if _, err := io.ReadFull(f, buf); err != nil {
			return "", fmt.Errorf("read at %d: %w", off, err)
		}
		if err := b.volume.check(buf, off); err != nil {
			return "", err
		}
	}
	took := time.Since(began)
	after, err := b.daemon.order("stats")
	if err != nil {
		return "", err
	}
	reads := after.Total - before.Total
	return fmt.Sprintf("%d MiB in %.2f s with %d reads of %d KiB on average", volumeSize>>20, took.Seconds(), reads, volumeSize>>10/max(reads, 1)), nil
}

// mount: squashfs below, a tmpfs above, and the tree's digest while all is well.
func (b *bench) mount() (string, error) {
	for _, dir := range []string{"/lower", "/run/upper", "/run/work", "/root"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := unix.Mount("/dev/nbd0", "/lower", "squashfs", unix.MS_RDONLY, ""); err != nil {
		return "", fmt.Errorf("mount squashfs: %w", err)
	}
	if err := unix.Mount("overlay", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/run/upper,workdir=/run/work"); err != nil {
		return "", fmt.Errorf("mount overlay: %w", err)
	}
	var err error
	b.digest, err = treeDigest("/root")
	return "tree digest " + b.digest, err
}

// underLoad runs faults while readers read the device and the mounted tree,
// and demands that they go on afterwards and nothing failed.
func (b *bench) underLoad(faults func(r *readers) error) (string, error) {
	r := startReaders(b.volume, 8, 1<<40)
	tree := make(chan error, 1)
	quit := make(chan struct{})
	trees := 0
	go func() {
		for {
			select {
			case <-quit:
				tree <- nil
				return
			default:
			}
			if err := b.checkTree(); err != nil {
				tree <- err
				return
			}
			trees++
		}
	}()
	err := faults(r)
	if err == nil {
		err = goesOn(r)
	}
	close(quit)
	err = errors.Join(err, <-tree, r.stop())
	stats, statsErr := b.daemon.order("stats")
	return fmt.Sprintf("%d blocks and %d trees read, %d connections served", r.done.Load(), trees, stats.Conns), errors.Join(err, statsErr)
}

// checkTree reads the mounted tree from cold.
func (b *bench) checkTree() error {
	if err := dropCaches(); err != nil {
		return err
	}
	digest, err := treeDigest("/root")
	if err == nil && digest != b.digest {
		err = errors.New("the mounted tree has another digest")
	}
	return err
}

// goesOn waits until every reader could have read again.
func goesOn(r *readers) error {
	from := r.done.Load()
	for range 300 {
		if r.done.Load() > from+100 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("readers do not go on: %d blocks in half a minute", r.done.Load()-from)
}

// drop: all connections are cut at once, four times, and replaced by the
// daemon.
func (b *bench) drop() (string, error) {
	return b.underLoad(func(r *readers) error {
		for range 4 {
			if _, err := b.daemon.order("drop"); err != nil {
				return err
			}
			if err := goesOn(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// kill: the daemon is killed and started again at once, three times.
func (b *bench) kill() (string, error) {
	return b.underLoad(func(r *readers) error {
		for range 3 {
			b.daemon.kill()
			if err := b.restart(); err != nil {
				return err
			}
			if err := goesOn(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// absence: no daemon for longer than the kernel waits for an answer.
func (b *bench) absence() (string, error) {
	return b.underLoad(func(*readers) error {
		b.daemon.kill()
		time.Sleep(2*timeout + timeout/2)
		return b.restart()
	})
}

// stall: the backend answers nobody for longer than the kernel waits, so that
// it gives up one connection after another.
func (b *bench) stall() (string, error) {
	return b.underLoad(func(r *readers) error {
		before, err := b.daemon.order("stats")
		if err != nil {
			return err
		}
		if _, err := b.daemon.order("stall"); err != nil {
			return err
		}
		time.Sleep(4 * timeout)
		after, err := b.daemon.order("stats")
		if err != nil {
			return err
		}
		if _, err := b.daemon.order("resume"); err != nil {
			return err
		}
		if after.Conns == before.Conns {
			return errors.New("the kernel gave up no connection: this case tests nothing")
		}
		return nil
	})
}

// freeze: the daemon is stopped (SIGSTOP) for longer than the kernel waits.
func (b *bench) freeze() (string, error) {
	return b.underLoad(func(*readers) error {
		if err := b.daemon.command.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(4 * timeout)
		return b.daemon.command.Process.Signal(syscall.SIGCONT)
	})
}

// broken: a backend that truly cannot read is the one thing that ends in EIO,
// for that read only.
func (b *bench) broken() (string, error) {
	if _, err := b.daemon.order("break"); err != nil {
		return "", err
	}
	err := readRandom(b.volume, 1, 1)
	if _, err := b.daemon.order("mend"); err != nil {
		return "", err
	}
	if !errors.Is(err, unix.EIO) {
		return "", fmt.Errorf("a read of a broken backend: %v, want EIO", err)
	}
	return err.Error(), readRandom(b.volume, 8, 200)
}

// stranger: a daemon with another image does not get the device, dead or alive.
func (b *bench) stranger() (string, error) {
	other := ours
	other.Identity = "babe4567"
	if _, err := startDaemon(other); err == nil || !strings.Contains(err.Error(), "not taken over") {
		return "", fmt.Errorf("a stranger got: %v", err)
	}
	b.daemon.kill()
	if _, err := startDaemon(other); err == nil || !strings.Contains(err.Error(), "not taken over") {
		return "", fmt.Errorf("after a kill a stranger got: %v", err)
	}
	if err := b.restart(); err != nil {
		return "", err
	}
	return "", b.checkTree()
}

// detach: the device is free again once nothing uses it, and takes another
// image then.
func (b *bench) detach() (string, error) {
	for _, dir := range []string{"/root", "/lower"} {
		if err := unix.Unmount(dir, 0); err != nil {
			return "", fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if _, err := b.daemon.order("detach"); err != nil {
		return "", err
	}
	b.daemon.kill()
	if up, err := blockdev.Connected(0); err != nil || up {
		return "", fmt.Errorf("after a detach: connected %v, %v", up, err)
	}
	var err error
	b.daemon, err = startDaemon(settings{Identity: "babe4567", Timeout: timeout, Connections: 4})
	if err != nil {
		return "", err
	}
	if b.daemon.again {
		return "", errors.New("a free device passes for one to be taken over")
	}
	return "", errors.Join(b.probe(), readRandom(b.volume, 4, 100))
}

// lost: when somebody else disconnects the device, the daemon says so and ends.
func (b *bench) lost() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := blockdev.Disconnect(ctx, 0); err != nil {
		return "", err
	}
	_, err := b.daemon.answer()
	b.daemon.kill()
	if err == nil || !strings.Contains(err.Error(), blockdev.ErrLost.Error()) {
		return "", fmt.Errorf("the daemon says %v, want %v", err, blockdev.ErrLost)
	}
	return err.Error(), nil
}
