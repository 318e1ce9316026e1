package bootserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"viver.lan/internal/durable"
	"viver.lan/internal/hosttool"
)

// The unit that Install writes.
const (
	unitName = "viver.service"
	unitFile = "/etc/systemd/system/" + unitName
)

// unitText is the unit; systemd.exec(5) and systemd.service(5) say what each line does. The
// volume says goodbye to the members when its supervisor is told to end, so that one alone is
// told. Nothing but the directories that are named is written.
const unitText = `# Written by viver serve --install; viver serve --uninstall removes it.
[Unit]
Description=VIVER: boots the machines of a network
Documentation=man:viver-serve(1)
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=%s
Restart=on-failure
RestartSec=10
KillMode=mixed
StateDirectory=viver
StateDirectoryMode=0700
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
ProtectKernelModules=yes
ProtectControlGroups=yes

[Install]
WantedBy=multi-user.target
`

// Install writes a unit that serves the same, has systemd start it now and at each start of
// this machine, and says so to out. program is this program; public is the file of the owner's
// key, "" for none. Done again, it replaces the unit.
func (s *Server) Install(ctx context.Context, out io.Writer, program, public string) error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("this machine does not run systemd, for which --install writes a unit: have your init start viver serve without it")
	}
	if err := s.verify(ctx); err != nil {
		return err
	}
	words, err := s.command(program, public)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(unitFile, fmt.Appendf(nil, unitText, commandLine(words)), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", unitName}, {"restart", unitName}} {
		if err := hosttool.Run(ctx, nil, "systemctl", args...); err != nil {
			return fmt.Errorf("%s is written, and not started: %w", unitFile, err)
		}
	}
	_, err = fmt.Fprintf(out, "%s: started, now and at each start of this machine\n  viver status --watch      the network\n  journalctl -u viver -f    the log\n", unitFile)
	return err
}

// command is the command line that serves the same from any directory.
func (s *Server) command(program, public string) ([]string, error) {
	words := []string{program, "serve", s.cfg.Image, "--interface", s.link.Name}
	add := func(flag, file string) error {
		path, err := filepath.Abs(file)
		words = append(words, flag, path)
		return err
	}
	var errs []error
	if public != "" {
		errs = append(errs, add("--public", public))
	}
	if s.cfg.Settings != "" {
		errs = append(errs, add("--settings", s.cfg.Settings))
	}
	for _, dir := range s.cfg.Runes {
		errs = append(errs, add("--rune", dir))
	}
	return words, errors.Join(errs...)
}

// commandLine writes words as systemd reads them (systemd.service(5), "Command lines").
func commandLine(words []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$")
	var quoted []string
	for _, w := range words {
		if w = escape.Replace(w); strings.ContainsAny(w, " \t'\";") {
			w = `"` + w + `"`
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}

// Uninstall stops the unit and removes it, and says so to out. There being none is no error.
func Uninstall(ctx context.Context, out io.Writer) error {
	if _, err := os.Lstat(unitFile); errors.Is(err, fs.ErrNotExist) {
		_, err := fmt.Fprintf(out, "%s: there is none\n", unitFile)
		return err
	}
	if err := hosttool.Run(ctx, nil, "systemctl", "disable", "--now", unitName); err != nil {
		return err
	}
	if err := os.Remove(unitFile); err != nil {
		return err
	}
	if err := hosttool.Run(ctx, nil, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s: stopped and removed\n", unitFile)
	return err
}
