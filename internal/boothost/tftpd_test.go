package boothost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/tftp"
)

func TestBlocksFitTheLink(t *testing.T) {
	for mtu, want := range map[int]int{1500: 1468, 9000: 1468, 1280: 1248, 576: 544, 68: 512} {
		if got := blockFor(mtu); got != want {
			t.Errorf("MTU %d: blocks of %d bytes, want %d", mtu, got, want)
		}
	}
}

// tftpRequest is one whose transfer takes all of the file and ends with an error.
type tftpRequest struct {
	name string
	ends error
}

func (r tftpRequest) Name() string         { return r.name }
func (r tftpRequest) From() netip.AddrPort { return netip.MustParseAddrPort("10.77.0.5:2070") }
func (r tftpRequest) Send(_ context.Context, file io.Reader, size int64) (int64, error) {
	n, err := io.Copy(io.Discard, file)
	if err == nil && n != size {
		err = errors.New("another size")
	}
	return n, errors.Join(r.ends, err)
}

// What a client is told, and what the log says.
func TestTFTPAnswers(t *testing.T) {
	image := testImage(t)
	image.broken = map[string]error{"boot/grubx64.efi": errMedium}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, c := range []struct {
		ctx       context.Context
		request   tftpRequest
		told, log string
	}{
		{t.Context(), tftpRequest{name: "//shimx64.efi"}, "", "level=INFO msg=\"tftp: sent\""},
		{t.Context(), tftpRequest{name: "etc/passwd"}, "file not found", "level=DEBUG msg=\"tftp: no such file\""},
		{t.Context(), tftpRequest{name: image.rootName()}, "file not found", "level=DEBUG msg=\"tftp: no such file\""},
		{t.Context(), tftpRequest{name: "grubx64.efi"}, errMedium.Error(), "level=WARN msg=\"tftp: aborted\""},
		{stopped, tftpRequest{"shimx64.efi", context.Canceled}, "the boot host stops: context canceled", "level=WARN msg=\"tftp: aborted\""},
		{t.Context(), tftpRequest{"shimx64.efi", &tftp.Aborted{Reason: &tftp.Error{}}}, "", "level=DEBUG msg=\"tftp: only the size was requested\""},
		{t.Context(), tftpRequest{"shimx64.efi", &tftp.Aborted{Reason: &tftp.Error{Code: 3, Text: "disk full"}, Started: true}}, "disk full", "level=WARN msg=\"tftp: aborted\""},
	} {
		var log bytes.Buffer
		cfg := testConfig(t)
		cfg.Image, cfg.Log = image, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		told := ""
		if err := newTFTPServer(newHost(t, cfg)).read(c.ctx, c.request); err != nil {
			told = err.Error()
		}
		if (told == "") != (c.told == "") || !strings.Contains(told, c.told) || !strings.Contains(log.String(), c.log) {
			t.Errorf("%q, %v: the client is told %q, want %q; the log has %s", c.request.name, c.request.ends, told, c.told, &log)
		}
	}
}

// rootName is what a client would ask for to get the root file system.
func (m *memImage) rootName() string {
	return "boot/" + m.manifest.Infohash.String() + "/root.squashfs"
}
