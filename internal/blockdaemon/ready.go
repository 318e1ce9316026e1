package blockdaemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// maxNotice is more than an init says at once.
const maxNotice = 4 << 10

// awaitReady waits on a datagram socket until process 1 says that it has started all
// that it was to start (sd_notify(3)), and returns nil then. systemd says so to
// whoever started it, if it was given the socket's name in $NOTIFY_SOCKET.
func awaitReady(ctx context.Context, socket string) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen for the init: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("listen for the init: %w", err)
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err = errors.Join(err, setErr); err != nil {
		return fmt.Errorf("listen for the init: %w", err)
	}
	for {
		notice, credentials := make([]byte, maxNotice), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
		n, oob, _, _, err := conn.ReadMsgUnix(notice, credentials)
		if err != nil {
			return fmt.Errorf("listen for the init: %w", err)
		}
		if isReady(notice[:n]) && sender(credentials[:oob]) == 1 {
			return nil
		}
	}
}

// isReady reports whether a notice says READY=1 in a line of its own.
func isReady(notice []byte) bool {
	for line := range bytes.Lines(notice) {
		if string(bytes.TrimSuffix(line, []byte("\n"))) == "READY=1" {
			return true
		}
	}
	return false
}

// sender returns the process that the kernel says has sent a message, 0 when it does
// not say.
func sender(credentials []byte) int32 {
	messages, err := unix.ParseSocketControlMessage(credentials)
	if err != nil || len(messages) == 0 {
		return 0
	}
	c, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0
	}
	return c.Pid
}
