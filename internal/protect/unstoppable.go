package protect

import (
	"fmt"
	"os"
	"os/signal"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeEvery bounds how long this process stays stopped.
const wakeEvery = time.Second

// refuseToStop makes a SIGSTOP pass by itself. systemd-shutdown and killall5
// stop every process before they pick whom to end, those marked as storage
// daemons too; if they then touch a page of the root disk, they wait for us
// and we for them, for ever. SIGSTOP cannot be caught, but a POSIX timer
// (timer_create(2)) goes on in a stopped process, and SIGCONT wakes it.
func refuseToStop() error {
	// A caught signal, because kernels since 6.13 stop timers whose signal
	// would be ignored. Nobody reads the channel.
	signal.Notify(make(chan os.Signal, 1), unix.SIGCONT)
	event := struct {
		value  uintptr
		signal int32
		notify int32 // 0 is SIGEV_SIGNAL
		_      [48]byte
	}{signal: int32(unix.SIGCONT)}
	var id int32
	if _, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); errno != 0 {
		return fmt.Errorf("make the timer that wakes a stopped process: %w", errno)
	}
	every := unix.NsecToTimespec(wakeEvery.Nanoseconds())
	spec := struct{ interval, value unix.Timespec }{every, every}
	if _, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("start the timer that wakes a stopped process: %w", errno)
	}
	return nil
}
