package segment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/contain"
)

// answerTime is how long either side waits for the other.
const answerTime = 2 * time.Second

const (
	enlarged  = "enlarged" // the answer when it worked; else it is the error's text
	maxAnswer = 1 << 10    // bytes, more than an error's text has
)

// Lend has the server at a socket enlarge the segments of a connection, which stays the
// caller's.
func Lend(socket string, lent *net.TCPConn) error {
	server, err := net.DialTimeout("unixpacket", socket, answerTime)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	raw, err := lent.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = server.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
	})
	if err = errors.Join(err, sendErr); err != nil {
		return err
	}
	answer := make([]byte, maxAnswer)
	n, err := server.Read(answer)
	if err != nil {
		return fmt.Errorf("no answer at %s: %w", socket, err)
	}
	if text := string(answer[:n]); text != enlarged {
		return fmt.Errorf("at %s: %s", socket, text)
	}
	return nil
}

// Serve enlarges the segments of connections that processes of this user, or of root,
// lend at a socket, until ctx ends, and returns nil then.
func Serve(ctx context.Context, socket string, user uint32, log *slog.Logger) error {
	l, err := listen(socket)
	if err != nil {
		return err
	}
	return serve(ctx, l, user, log)
}

func listen(socket string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for connections to enlarge: %w", err)
	}
	return l, nil
}

func serve(ctx context.Context, l *net.UnixListener, user uint32, log *slog.Logger) error {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		client, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("listen for connections to enlarge: %w", err)
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			contain.Do(log, "a connection to enlarge", func() {
				if err := answer(client, user); err != nil {
					log.Debug("a connection keeps its small segments", "error", err)
				}
			})
		}()
		select {
		case <-answered:
		case <-ctx.Done(): // to close what was lent may take the kernel for ever (SO_LINGER)
			return nil
		}
	}
}

// answer serves one request, a connection with a byte, and says "enlarged" or why not.
func answer(client *net.UnixConn, user uint32) error {
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if err := check(client, user); err != nil {
		return err
	}
	fd, err := receive(client)
	if err != nil {
		return err
	}
	text := enlarged
	if err = enlarge(fd); err != nil {
		text = err.Error()
	}
	_, writeErr := client.Write([]byte(text))
	return errors.Join(err, unix.Close(fd), writeErr)
}

// check refuses processes of other users.
func check(client *net.UnixConn, user uint32) error {
	raw, err := client.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return err
	}
	if !mayAsk(peer, user) {
		return fmt.Errorf("user %d may not ask for it", peer.Uid)
	}
	return nil
}

func mayAsk(peer *unix.Ucred, user uint32) bool { return peer.Uid == user || peer.Uid == 0 }

// receive returns the descriptor that came, which is now ours.
func receive(client *net.UnixConn) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := client.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(errors.New("no descriptor came"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	if len(fds) == 1 {
		return fds[0], nil
	}
	for _, fd := range fds { // there is room for two
		err = errors.Join(err, unix.Close(fd))
	}
	return -1, errors.Join(fmt.Errorf("%d descriptors came, want 1", len(fds)), err)
}
