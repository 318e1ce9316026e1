package blockdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"viver.lan/internal/nbd"
)

// driver is what we ask of the kernel's NBD driver.
type driver interface {
	connected(index int) (bool, error)
	connect(connectRequest) error
	reconfigure(reconfigureRequest) error
	disconnect(index int) error
}

// connectRequest is NBD_CMD_CONNECT.
type connectRequest struct {
	index                int
	size                 int64 // bytes
	blockSize            int64 // bytes
	timeout, deadTimeout time.Duration
	identity             string
	sockets              []int // file descriptors
}

// reconfigureRequest is NBD_CMD_RECONFIGURE: new sockets for dead ones.
type reconfigureRequest struct {
	index    int
	identity string
	sockets  []int // file descriptors
}

// Names of include/uapi/linux/nbd-netlink.h.
const (
	familyName    = "nbd"
	familyVersion = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdStatus      = 5

	attrIndex       = 1
	attrSizeBytes   = 2
	attrBlockSize   = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrSockets     = 7
	attrDeadTimeout = 8
	attrDeviceList  = 9
	attrIdentity    = 10

	attrSocketItem = 1
	attrSocketFD   = 1

	attrDeviceItem      = 1
	attrDeviceIndex     = 1
	attrDeviceConnected = 2
)

// attributes of a connect request.
func (r connectRequest) attributes() []*nl.RtAttr {
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(attrIndex, nl.Uint32Attr(uint32(r.index))),
		nl.NewRtAttr(attrSizeBytes, nl.Uint64Attr(uint64(r.size))),
		nl.NewRtAttr(attrBlockSize, nl.Uint64Attr(uint64(r.blockSize))),
		nl.NewRtAttr(attrTimeout, nl.Uint64Attr(seconds(r.timeout))),
		nl.NewRtAttr(attrServerFlags, nl.Uint64Attr(uint64(nbd.FlagHasFlags|nbd.FlagReadOnly|nbd.FlagCanMultiConn))),
		nl.NewRtAttr(attrDeadTimeout, nl.Uint64Attr(seconds(r.deadTimeout))),
	}
	return append(attrs, common(r.identity, r.sockets)...)
}

// attributes of a reconfigure request.
func (r reconfigureRequest) attributes() []*nl.RtAttr {
	index := nl.NewRtAttr(attrIndex, nl.Uint32Attr(uint32(r.index)))
	return append([]*nl.RtAttr{index}, common(r.identity, r.sockets)...)
}

func common(identity string, sockets []int) (attrs []*nl.RtAttr) {
	if identity != "" {
		attrs = append(attrs, nl.NewRtAttr(attrIdentity, nl.ZeroTerminated(identity)))
	}
	list := nl.NewRtAttr(attrSockets, nil)
	for _, fd := range sockets {
		list.AddRtAttr(attrSocketItem, nil).AddRtAttr(attrSocketFD, nl.Uint32Attr(uint32(fd)))
	}
	return append(attrs, list)
}

// seconds rounds up: 0 would switch a timeout off.
func seconds(d time.Duration) uint64 {
	return uint64((d + time.Second - 1) / time.Second)
}

// parseStatus finds a device in the reply to NBD_CMD_STATUS, which begins with
// a generic netlink header. A device that the kernel does not list is not
// connected.
func parseStatus(reply []byte, index int) (connected bool, err error) {
	if len(reply) < nl.SizeofGenlmsg {
		return false, fmt.Errorf("status reply of %d bytes", len(reply))
	}
	lists, err := attributes(reply[nl.SizeofGenlmsg:], attrDeviceList)
	if err != nil {
		return false, fmt.Errorf("status reply: %w", err)
	}
	for _, list := range lists {
		devices, err := attributes(list, attrDeviceItem)
		if err != nil {
			return false, fmt.Errorf("status reply: %w", err)
		}
		for _, device := range devices {
			indices, err1 := attributes(device, attrDeviceIndex)
			states, err2 := attributes(device, attrDeviceConnected)
			if err := errors.Join(err1, err2); err != nil {
				return false, fmt.Errorf("status reply: %w", err)
			}
			if len(indices) == 0 || len(indices[0]) < 4 || binary.NativeEndian.Uint32(indices[0]) != uint32(index) {
				continue
			}
			return len(states) > 0 && len(states[0]) > 0 && states[0][0] != 0, nil
		}
	}
	return false, nil
}

// attributes returns the values of the netlink attributes of one type in b.
// The library's own parser panics on a cut message.
func attributes(b []byte, kind uint16) (values [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < unix.SizeofRtAttr {
			return nil, fmt.Errorf("%d bytes left where an attribute begins", len(b))
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil, fmt.Errorf("an attribute of %d bytes in %d", length, len(b))
		}
		if binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK == kind {
			values = append(values, b[unix.SizeofRtAttr:length])
		}
		padded := (length + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		b = b[min(padded, len(b)):]
	}
	return values, nil
}

// netlinkDriver is the running kernel's driver.
type netlinkDriver struct{}

func (netlinkDriver) connected(index int) (bool, error) {
	replies, err := request(cmdStatus, 0, nl.NewRtAttr(attrIndex, nl.Uint32Attr(uint32(index))))
	if err != nil {
		return false, fmt.Errorf("ask for its status: %w", err)
	}
	for _, reply := range replies {
		return parseStatus(reply, index)
	}
	return false, errors.New("ask for its status: no reply")
}

func (netlinkDriver) connect(r connectRequest) error {
	if _, err := request(cmdConnect, unix.NLM_F_ACK, r.attributes()...); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (netlinkDriver) reconfigure(r reconfigureRequest) error {
	if _, err := request(cmdReconfigure, unix.NLM_F_ACK, r.attributes()...); err != nil {
		return fmt.Errorf("reconfigure: %w", err)
	}
	return nil
}

func (netlinkDriver) disconnect(index int) error {
	_, err := request(cmdDisconnect, unix.NLM_F_ACK, nl.NewRtAttr(attrIndex, nl.Uint32Attr(uint32(index))))
	return err
}

// request sends one command to the driver. The family's number is asked for
// each time: it changes when the module is loaded again.
func request(command uint8, flags int, attrs ...*nl.RtAttr) ([][]byte, error) {
	family, err := netlink.GenlFamilyGet(familyName)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("the kernel knows no nbd: load the module nbd: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("look up nbd's netlink family: %w", err)
	}
	r := nl.NewNetlinkRequest(int(family.ID), flags)
	r.AddData(&nl.Genlmsg{Command: command, Version: familyVersion})
	for _, a := range attrs {
		r.AddData(a)
	}
	return r.Execute(unix.NETLINK_GENERIC, 0)
}
