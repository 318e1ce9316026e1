package bootbench

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"viver.lan/internal/sleep"
	"viver.lan/qemu-tests/harness/lan"
)

// service is what a frame belongs to.
type service int

// The services that frames are told apart by.
const (
	otherService service = iota // DHCP, gossip, ARP
	bootFiles                   // TFTP and HTTP
	rootDisk                    // BitTorrent, NBD, and the HTTP server that has the root only
	services
)

// Ports of the servers. docs/network.md has VIVER's.
const (
	httpPort     = 80
	nodeHTTPPort = 6880
	swarmPort    = 6881
	nbdPort      = 10809
	rootHTTPPort = 8000
	gossipPort   = 7946
)

// classify tells a frame's service by its ports. TFTP data has no port of its
// own: it is what is left of UDP.
func classify(frame []byte) service {
	const ethernet, tcp, udp = 14, 6, 17
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return otherService
	}
	ip := frame[ethernet:]
	header := int(ip[0]&15) * 4
	if header < 20 || len(ip) < header+4 {
		return otherService
	}
	src, dst := binary.BigEndian.Uint16(ip[header:]), binary.BigEndian.Uint16(ip[header+2:])
	switch ip[9] {
	case tcp:
		return max(tcpService(src), tcpService(dst))
	case udp:
		return udpService(src, dst)
	}
	return otherService
}

func tcpService(port uint16) service {
	switch port {
	case httpPort, nodeHTTPPort:
		return bootFiles
	case swarmPort, nbdPort, rootHTTPPort:
		return rootDisk
	}
	return otherService
}

func udpService(src, dst uint16) service {
	for _, p := range []uint16{src, dst} {
		if p < 1024 && p != 69 || p == gossipPort || p == swarmPort || p == 4011 {
			return otherService
		}
	}
	return bootFiles
}

// meter counts what a server sends to one machine, by service.
type meter struct {
	mac   [6]byte
	bytes [services]atomic.Int64
}

// meters see the frames that a server sends. Machines are added while it runs.
type meters struct {
	mu sync.RWMutex // guards to
	to map[[6]byte]*meter
}

// watch returns the meter of a machine, which begins at 0.
func (m *meters) watch(address string) (*meter, error) {
	mac, err := net.ParseMAC(address)
	if err != nil {
		return nil, err
	}
	one := &meter{mac: [6]byte(mac)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.to == nil {
		m.to = map[[6]byte]*meter{}
	}
	m.to[one.mac] = one
	return one, nil
}

// see is a lan.PortOptions.Mangle that changes nothing.
func (m *meters) see(frame []byte) {
	if len(frame) < 14 {
		return
	}
	m.mu.RLock()
	one := m.to[[6]byte(frame[:6])]
	m.mu.RUnlock()
	if one != nil {
		one.bytes[classify(frame)].Add(int64(len(frame)))
	}
}

// sample is what had come to a machine at a moment.
type sample struct {
	at       time.Time
	received int64
	by       [services]int64
}

// sampleInterval is how exactly a moment's bytes are known.
const sampleInterval = 50 * time.Millisecond

// timeline is what came to a machine over the time.
type timeline struct {
	port  *lan.Port
	meter *meter

	mu      sync.Mutex // guards samples
	samples []sample

	end func() // stops the recording
}

// record samples until end is called. Both may be nil: then all is 0.
func record(port *lan.Port, m *meter) *timeline {
	t := &timeline{port: port, meter: m}
	t.take()
	t.end = sleep.Every(sampleInterval, t.take)
	return t
}

func (t *timeline) take() {
	s := sample{at: time.Now()}
	if t.port != nil {
		s.received = int64(t.port.Stats().ReceivedBytes)
	}
	if t.meter != nil {
		for i := range s.by {
			s.by[i] = t.meter.bytes[i].Load()
		}
	}
	t.mu.Lock()
	t.samples = append(t.samples, s)
	t.mu.Unlock()
}

// until is the last sample not after a moment.
func (t *timeline) until(at time.Time) (last sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.samples {
		if s.at.After(at) {
			break
		}
		last = s
	}
	return last
}
