package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/qemu-tests/guests/execproto"
)

func cmdHello(_ context.Context, _ execproto.Request, stdout, _ io.Writer) error {
	return json.NewEncoder(stdout).Encode(hello())
}

func cmdProcesses(_ context.Context, _ execproto.Request, stdout, _ io.Writer) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	enc := json.NewEncoder(stdout)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, ok := process(pid)
		if !ok {
			continue // gone since
		}
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	return nil
}

// process reads proc(5)'s stat and cmdline. The command's name may hold
// parentheses and blanks, so the last ")" ends it.
func process(pid int) (execproto.Process, bool) {
	stat := word(fmt.Sprintf("/proc/%d/stat", pid))
	begin, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if begin < 0 || end < begin {
		return execproto.Process{}, false
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 2 {
		return execproto.Process{}, false
	}
	p := execproto.Process{PID: pid, Comm: stat[begin+1 : end], Argv: []string{}}
	p.PPID, _ = strconv.Atoi(fields[1]) // the kernel writes numbers
	if line := strings.TrimSuffix(word(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"); line != "" {
		p.Argv = strings.Split(line, "\x00")
	}
	return p, true
}

func cmdKill(_ context.Context, req execproto.Request, _, _ io.Writer) error {
	name, err := arg(req, 1)
	if err != nil {
		return err
	}
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if n, err := strconv.Atoi(name); err == nil {
		sig = unix.Signal(n)
	} else if sig == 0 {
		return fmt.Errorf("no signal is called %q", name)
	}
	var errs []error
	for _, word := range req.Argv[2:] {
		pid, err := strconv.Atoi(word)
		if err == nil {
			err = unix.Kill(pid, sig)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("kill %s: %w", word, err))
		}
	}
	return errors.Join(errs...)
}

func cmdInterfaces(_ context.Context, _ execproto.Request, stdout, _ io.Writer) error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	enc := json.NewEncoder(stdout)
	for _, i := range list {
		out := execproto.Interface{Name: i.Name, MAC: i.HardwareAddr.String(), Up: i.Flags&net.FlagUp != 0, Addresses: []string{}}
		addresses, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addresses {
			out.Addresses = append(out.Addresses, a.String())
		}
		if err := enc.Encode(out); err != nil {
			return err
		}
	}
	return nil
}

func cmdGet(ctx context.Context, req execproto.Request, stdout, stderr io.Writer) error {
	url, err := arg(req, 1)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(stdout, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = fmt.Fprintln(stderr, resp.Status)
	return err
}
