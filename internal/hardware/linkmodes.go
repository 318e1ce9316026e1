package hardware

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linkSettings is struct ethtool_link_settings of linux/ethtool.h, with room behind it for
// the three sets of modes.
type linkSettings struct {
	cmd, speed uint32
	about      [7]uint8 // duplex, port and the like
	words      int8     // of each set
	more       [4]uint8
	reserved   [7]uint32
	modes      [3 * 127]uint32
}

// modeSpeeds are the speeds of link modes on copper and fibre, in Mbit/s, by the first bit
// and the last that have it (enum ethtool_link_mode_bit_indices). What is newer is left out:
// a link that is as fast as any of these is fast enough.
var modeSpeeds = []struct{ from, to, mbit int }{
	{0, 1, 10}, {2, 3, 100}, {4, 5, 1000}, {12, 12, 10000}, {15, 15, 2500}, {17, 17, 1000}, {18, 20, 10000},
	{23, 26, 40000}, {31, 33, 25000}, {34, 35, 50000}, {36, 39, 100000}, {40, 40, 50000}, {41, 41, 1000}, {42, 46, 10000}, {47, 47, 2500}, {48, 48, 5000},
}

// fastest returns the greatest speed that the card of a link supports, in Mbit/s; 0 when
// that cannot be told.
func fastest(name string) int {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(socket)
	// The first answer is how large the sets are, as a negative number.
	settings := linkSettings{cmd: unix.ETHTOOL_GLINKSETTINGS}
	for range 2 {
		if !ethtool(socket, request, &settings) {
			return 0
		}
		if settings.words < 0 {
			settings = linkSettings{cmd: unix.ETHTOOL_GLINKSETTINGS, words: -settings.words}
		}
	}
	return fastestOf(settings.modes[:max(settings.words, 0)])
}

// ethtool asks the kernel about a link.
func ethtool(socket int, request *unix.Ifreq, settings *linkSettings) bool {
	// struct ifreq holds a pointer to the question, which the garbage collector does not see.
	var pinner runtime.Pinner
	pinner.Pin(settings)
	defer pinner.Unpin()
	raw := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		rest [16]byte
	}{data: unsafe.Pointer(settings)}
	copy(raw.name[:], request.Name())
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&raw)))
	return errno == 0
}

// fastestOf reads a set of modes.
func fastestOf(supported []uint32) (mbit int) {
	for _, s := range modeSpeeds {
		for bit := s.from; bit <= s.to; bit++ {
			if bit/32 < len(supported) && supported[bit/32]>>(bit%32)&1 == 1 {
				mbit = max(mbit, s.mbit)
			}
		}
	}
	return mbit
}
