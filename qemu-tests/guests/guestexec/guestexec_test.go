package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/qemu-tests/guests/execproto"
)

func do(t *testing.T, stdin string, argv ...string) execproto.Response {
	t.Helper()
	return execute(t.Context(), execproto.Request{ID: 1, Argv: argv, Stdin: []byte(stdin)})
}

func TestPrograms(t *testing.T) {
	for _, test := range []struct {
		req  execproto.Request
		want execproto.Response
	}{
		{execproto.Request{Argv: []string{"cat"}, Stdin: []byte("in")}, execproto.Response{Stdout: []byte("in")}},
		{execproto.Request{Argv: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}}, execproto.Response{Exit: 3, Stdout: []byte("out\n"), Stderr: []byte("err\n")}},
		{execproto.Request{Argv: []string{"sh", "-c", "kill -9 $$"}}, execproto.Response{Exit: 137}},
		{execproto.Request{Argv: []string{"sh", "-c", "sleep 60 & echo left"}}, execproto.Response{Stdout: []byte("left\n")}},
		{execproto.Request{Argv: []string{"sleep", "60"}, Timeout: 0.1}, execproto.Response{Exit: -1, Error: "not done after 100ms"}},
		{execproto.Request{Argv: []string{"no-such-program"}}, execproto.Response{Exit: -1, Error: "executable file not found"}},
		{execproto.Request{}, execproto.Response{Exit: -1, Error: "an empty argv"}},
		{execproto.Request{Argv: []string{"@nonsense"}}, execproto.Response{Exit: -1, Error: "no command @nonsense"}},
	} {
		got := execute(t.Context(), test.req)
		if got.Exit != test.want.Exit || !bytes.Equal(got.Stdout, test.want.Stdout) || !bytes.Equal(got.Stderr, test.want.Stderr) ||
			!strings.Contains(got.Error, test.want.Error) || (got.Error == "") != (test.want.Error == "") {
			t.Errorf("%q: %+v, want %+v", test.req.Argv, got, test.want)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	r := do(t, "", "sh", "-c", "head -c 3000000 /dev/zero")
	if r.Exit != 0 || !r.Truncated || len(r.Stdout) != execproto.MaxOutput {
		t.Errorf("exit %d, truncated %v, %d bytes", r.Exit, r.Truncated, len(r.Stdout))
	}
	if _, err := execproto.Encode(r); err != nil { // zeros are the longest way to say a byte
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	content := strings.Repeat("0123456789abcdef", 100_000)
	if r := do(t, content, "@write", path, "600"); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if r := do(t, "", "@read", path, "16", "3"); string(r.Stdout) != "012" || r.Truncated {
		t.Errorf("%+v", r)
	}
	if r := do(t, "", "@read", path); len(r.Stdout) != execproto.MaxOutput || !r.Truncated {
		t.Errorf("%d bytes, truncated %v", len(r.Stdout), r.Truncated)
	}
	// The judge is sha256sum, not the library we use ourselves.
	judge, err := exec.Command("sha256sum", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if r := do(t, "", "@sha256", path); r.Exit != 0 || !strings.HasPrefix(string(judge), strings.TrimSpace(string(r.Stdout))) || len(r.Stdout) != 65 {
		t.Errorf("%+v, want %s", r, judge)
	}
	sum := sha256.Sum256([]byte(content[:1_048_577]))
	if r := do(t, "", "@sha256", path, "1048577"); strings.TrimSpace(string(r.Stdout)) != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v", r)
	}
	if r := do(t, "", "@sha256", path, "9999999"); r.Exit != 1 || !strings.Contains(string(r.Stderr), "ends after 1600000 bytes") {
		t.Errorf("%+v", r)
	}
	if err := os.Symlink("f", path+"l"); err != nil {
		t.Fatal(err)
	}
	r := do(t, "", "@ls", filepath.Dir(path))
	var file, link execproto.Entry
	dec := json.NewDecoder(bytes.NewReader(r.Stdout))
	if dec.Decode(&file) != nil || dec.Decode(&link) != nil || file.Size != 1_600_000 || file.Mode != "-rw-------" || link.Link != "f" {
		t.Errorf("%+v %+v", file, link)
	}
	for _, bad := range [][]string{{"@read"}, {"@read", "/no/such"}, {"@read", path, "x"}, {"@write", path, "9"}, {"@ls", path}, {"@sha256", "/no/such"}} {
		if r := do(t, "", bad...); r.Exit != 1 || len(r.Stderr) == 0 {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

func TestSystem(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(child.Process.Pid)
	want := fmt.Sprintf(`{"pid":%s,"ppid":%d,"comm":"sleep","argv":["sleep","60"]}`, pid, os.Getpid())
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(string(do(t, "", "@ps").Stdout), want); {
		if time.Now().After(deadline) { // the kernel shows argv a moment after exec
			t.Fatalf("@ps never said %s", want)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if r := do(t, "", "@kill", "term", pid); r.Exit != 0 {
		t.Errorf("%+v", r)
	}
	if err := child.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Error(err)
	}
	if r := do(t, "", "@kill", "nonsense", pid); r.Exit != 1 {
		t.Errorf("%+v", r)
	}
	if r := do(t, "", "@interfaces"); !strings.Contains(string(r.Stdout), `"name":"lo"`) {
		t.Errorf("%+v", r)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "body")
	}))
	defer web.Close()
	if r := do(t, "", "@get", web.URL); r.Exit != 0 || string(r.Stdout) != "body" {
		t.Errorf("%+v", r)
	}
	if r := do(t, "", "@get", web.URL+"/x"); r.Exit != 1 || !strings.Contains(string(r.Stderr), "404") {
		t.Errorf("%+v", r)
	}
}

func TestSessionAnswersEveryRequest(t *testing.T) {
	host, guest := net.Pipe()
	a := &agent{out: guest}
	var g errgroup.Group
	g.Go(func() error { return a.session(context.Background(), guest) })
	g.Go(func() error {
		defer host.Close()
		lines := bufio.NewScanner(host)
		lines.Buffer(nil, execproto.MaxLine)
		next := func() (*execproto.Hello, *execproto.Response) {
			for lines.Scan() {
				if h, r, err := execproto.DecodeReply(lines.Bytes()); h != nil || r != nil || err != nil {
					return h, r
				}
			}
			return nil, nil
		}
		if h, _ := next(); h == nil || h.BootID == "" || h.Init == "" || h.Uptime == 0 {
			return fmt.Errorf("hello %+v", h)
		}
		var send errgroup.Group
		send.Go(func() error {
			fmt.Fprintf(host, "half a li\n\n{\"id\":1,\"argv\":[\"%s\"]}\n", strings.Repeat("x", execproto.MaxLine))
			for id := range uint64(100) { // more than run at once, some slower than others
				line, err := execproto.Encode(execproto.Request{ID: id, Argv: []string{"sh", "-c", fmt.Sprintf("sleep 0.0%d; echo %d", id%3, id)}})
				if err != nil {
					return err
				}
				if _, err := host.Write(line); err != nil {
					return err
				}
			}
			return nil
		})
		seen := make(map[uint64]bool)
		for range 100 {
			_, r := next()
			if r == nil || seen[r.ID] || string(r.Stdout) != fmt.Sprintln(r.ID) {
				return fmt.Errorf("response %+v", r)
			}
			seen[r.ID] = true
		}
		return send.Wait()
	})
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSessionEndsWithItsHost(t *testing.T) {
	host, guest := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- (&agent{out: guest}).session(t.Context(), guest) }()
	line, _ := execproto.Encode(execproto.Request{ID: 1, Argv: []string{"sleep", "600"}, Timeout: 600})
	if _, err := bufio.NewReader(host).ReadString('}'); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = bufio.NewReader(host).WriteTo(&bytes.Buffer{}) }()
	if _, err := host.Write(line); err != nil {
		t.Fatal(err)
	}
	host.Close()
	if err := <-done; err != nil { // the sleep was killed, or this waits for ever
		t.Error(err)
	}
}

func TestFindPort(t *testing.T) {
	sys := t.TempDir()
	for dev, name := range map[string]string{"vport1p1": "org.qemu.guest_agent.0\n", "vport1p2": execproto.PortName + "\n"} {
		dir := filepath.Join(sys, "class/virtio-ports", dev)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findPort(sys); err != nil || got != "/dev/vport1p2" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := findPort(t.TempDir()); err == nil {
		t.Error("found a port where there is none")
	}
}
