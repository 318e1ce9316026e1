package blockdaemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"viver.lan/internal/control"
)

func TestRoomIsWarnedOfOncePerStep(t *testing.T) {
	var log strings.Builder
	var told []string
	r := roomWatch{log: slog.New(slog.NewTextHandler(&log, nil)), wall: func(_ context.Context, text string) error {
		told = append(told, text)
		return errors.New("nobody has a terminal")
	}}
	files := func(used uint64) control.Written {
		return control.Written{Size: 1000, Free: 1000, Files: 1000, FilesFree: 1000 - used}
	}
	bytes := func(used uint64) control.Written {
		return control.Written{Size: 1000, Free: 1000 - used, Files: 1000, FilesFree: 1000}
	}
	for _, c := range []struct {
		written control.Written
		says    string // "" for nothing
	}{
		{bytes(790), ""},
		{bytes(800), "80 % of the room for bytes"},
		{bytes(810), ""},
		{bytes(760), ""}, // not far enough below
		{bytes(800), ""},
		{bytes(750), ""},
		{bytes(805), "80 % of the room for bytes"},
		{files(950), "95 % of the number of files"},
		{bytes(1000), ""},
		{bytes(850), ""},
		{bytes(960), "96 % of the room for bytes"},
		{control.Written{Size: 1000, Free: 1000}, ""}, // no limit to the number
		{control.Written{Size: 1000, Free: 20}, "98 % of the room for bytes"},
	} {
		told = nil
		log.Reset()
		r.judge(t.Context(), &c.written)
		if c.says == "" && (len(told) > 0 || log.Len() > 0) {
			t.Errorf("%+v: told %q, logged %q; want silence", c.written, told, log.String())
		}
		if c.says != "" && (len(told) != 1 || !strings.Contains(told[0], c.says) || !strings.Contains(log.String(), "viver doctor files")) {
			t.Errorf("%+v: told %q, logged %q; want %q", c.written, told, log.String(), c.says)
		}
	}
}
