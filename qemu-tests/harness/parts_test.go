package harness

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestConsole(t *testing.T) {
	ours, theirs := net.Pipe()
	path := filepath.Join(t.TempDir(), "console.log")
	c, err := newConsole(ours, path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run()
	}()
	long := strings.Repeat("0123456789abcde\n", 2*consoleTail/16)
	for _, part := range []string{long, "\x1b[2J\x1b[01;01HWelcome to ", "GRUB!\r\n\x1b[?25hrescue"} {
		if _, err := theirs.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := c.wait(t.Context(), regexp.MustCompile(`Welcome to \w+!\nresc`))
	if err != nil || found != "Welcome to GRUB!\nresc" {
		t.Errorf("found %q, %v", found, err)
	}
	if n := len(c.Text()); n > consoleTail {
		t.Errorf("%d bytes are kept, the limit is %d", n, consoleTail)
	}
	typed := make(chan string)
	go func() {
		buf := make([]byte, 64)
		n, _ := theirs.Read(buf)
		typed <- string(buf[:n])
	}()
	if err := c.Type("poweroff\n"); err != nil || <-typed != "poweroff\n" {
		t.Errorf("typing: %v", err)
	}
	theirs.Close()
	<-done
	if _, err := c.wait(t.Context(), regexp.MustCompile("never")); !errors.Is(err, errMachineOff) {
		t.Errorf("waiting on a dead console: %v", err)
	}
	if saved, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(saved), long) || !strings.HasSuffix(string(saved), "\x1b[?25hrescue") {
		t.Errorf("the file has %d bytes (%v), want everything as it came", len(saved), err)
	}
	if got := c.LastLine(); got != "rescue" {
		t.Errorf("last line %q", got)
	}
}

func TestQMPFailsWhatNobodyWillAnswer(t *testing.T) {
	ours, theirs := net.Pipe()
	events := make(chan string, 1)
	q := newQMP(ours, func(name string, _ json.RawMessage) { events <- name })
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.run()
	}()
	qemu := func(replies ...string) {
		buf := make([]byte, 4096)
		for _, r := range replies {
			if _, err := theirs.Read(buf); err != nil {
				return
			}
			_, _ = theirs.Write([]byte(r))
		}
	}
	go func() {
		_, _ = theirs.Write([]byte("{\"QMP\": {}}\n"))
		qemu("nonsense\n{\"return\": {}, \"id\": 1}\n",
			"{\"event\": \"RESET\"}\n{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no cd\"}, \"id\": 2}\n")
		_, _ = theirs.Read(make([]byte, 4096))
		theirs.Close()
	}()
	if err := q.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.do(t.Context(), "eject", nil); err == nil || !strings.Contains(err.Error(), "eject: QEMU says DeviceNotFound: no cd") {
		t.Errorf("refused command: %v", err)
	}
	if name := <-events; name != "RESET" {
		t.Errorf("event %q", name)
	}
	for range 2 { // the one that was under way, and one after
		if err := q.do(t.Context(), "stop", nil); !errors.Is(err, errMachineOff) {
			t.Errorf("command to a QEMU that ended: %v", err)
		}
	}
	<-done
}

// errWaited is the cause when a test has seen long enough that nothing comes.
var errWaited = errors.New("nothing came")

func TestSlots(t *testing.T) {
	dir := t.TempDir()
	quick := func() context.Context {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errWaited)
		t.Cleanup(cancel)
		return ctx
	}
	var single []*slots
	for range slotCount {
		s, err := takeSlots(t.Context(), dir, 1)
		if err != nil {
			t.Fatal(err)
		}
		single = append(single, s)
	}
	if _, err := takeSlots(quick(), dir, 1); !errors.Is(err, errWaited) {
		t.Errorf("a machine too many: %v", err)
	}
	for _, s := range single[1:] {
		s.release()
	}
	if _, err := takeSlots(quick(), dir, 2); !errors.Is(err, errWaited) {
		t.Errorf("the whole host beside a machine: %v", err)
	}
	all := make(chan error, 1)
	go func() {
		s, err := takeSlots(t.Context(), dir, 2)
		if err == nil {
			s.release()
		}
		all <- err
	}()
	single[0].release()
	if err := <-all; err != nil {
		t.Errorf("the whole host once it is free: %v", err)
	}
}

// The probe boots on any QEMU without KVM, and its verdict on KVM is that of
// the cache.
func TestProbe(t *testing.T) {
	Need(t, QEMU)
	if err := probeGuest(t.Context(), QEMU, "tcg"); err != nil {
		t.Error(err)
	}
	if err := probeGuest(t.Context(), "/bin/false", "tcg"); err == nil {
		t.Error("a program that does not boot anything passes")
	}
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("VIVER_ACCEL", "")
	// A KVM that boots nothing, as any does for this program.
	accel, why := Accelerator(t.Context(), "/bin/false")
	if accel != "tcg" || why == "" {
		t.Fatalf("%q, %q", accel, why)
	}
	// Asked again, nothing boots.
	if again, sameWhy := Accelerator(t.Context(), QEMU); again != accel || sameWhy != why {
		t.Errorf("first %s (%s), then %s (%s)", accel, why, again, sameWhy)
	}
	t.Setenv("VIVER_ACCEL", "tcg")
	if accel, _ := Accelerator(t.Context(), QEMU); accel != "tcg" {
		t.Errorf("VIVER_ACCEL=tcg gives %s", accel)
	}
}

func TestConfigDefaultsAndComplaints(t *testing.T) {
	c := Config{Name: "node", CDROM: "/dev/null", NICs: []NIC{{}, {MAC: "nonsense"}}, Firmware: "openfirmware"}.withDefaults()
	if c.Memory != 512 || c.CPUs != 1 || len(c.Boot) != 2 || c.Boot[0] != CD {
		t.Errorf("defaults: %+v", c)
	}
	if again := (Config{Name: "node", NICs: []NIC{{}}}).withDefaults(); again.NICs[0].MAC != c.NICs[0].MAC || again.Boot[0] != Network {
		t.Errorf("another machine of that name: %+v", again)
	}
	c.Name, c.Disks = "a/b", []string{"/no/such/disk"}
	err := c.validate()
	for _, want := range []string{`name "a/b"`, `firmware "openfirmware"`, "nonsense", "/no/such/disk", "no LAN"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("complaints %v lack %q", err, want)
		}
	}
}

func TestFirmwareOptions(t *testing.T) {
	line := func(c Config) string {
		c.Name = "node"
		return strings.Join(c.withDefaults().args(wiring{accel: "tcg", vars: "vars.fd", ports: map[string]string{}}), " ")
	}
	for _, c := range []struct {
		config Config
		has    []string
		hasNot []string
	}{
		{Config{}, nil, []string{"pflash", "smm", "fw_cfg"}},
		{Config{Firmware: UEFI}, []string{"OVMF_CODE_4M.fd", "file=vars.fd"}, []string{"smm", "fw_cfg"}},
		{Config{Firmware: SecureUEFI}, []string{"OVMF_CODE_4M.secboot.fd", "file=vars.fd", "smm=on", "property=secure,value=on"}, []string{"fw_cfg"}},
		{Config{Firmware: TestKeyUEFI}, []string{"OVMF_CODE_4M.secboot.fd", "smm=on", "property=secure,value=on"}, []string{"fw_cfg"}},
		{Config{Firmware: UEFI, HTTPBoot: true}, []string{"IPv4PXESupport,string=n", "IPv6PXESupport,string=n"}, []string{"smm"}},
	} {
		got := line(c.config)
		for _, want := range c.has {
			if !strings.Contains(got, want) {
				t.Errorf("%+v: no %q in %s", c.config, want, got)
			}
		}
		for _, none := range c.hasNot {
			if strings.Contains(got, none) {
				t.Errorf("%+v: %q in %s", c.config, none, got)
			}
		}
	}
	if err := (Config{Name: "node", HTTPBoot: true}).withDefaults().validate(); err == nil || !strings.Contains(err.Error(), "bios has no HTTP Boot") {
		t.Errorf("HTTP Boot by a BIOS: %v", err)
	}
	for _, f := range []Firmware{UEFI, SecureUEFI, TestKeyUEFI} {
		code, vars := f.ovmf()
		for _, path := range []string{code, vars} {
			if _, err := os.Stat(path); err != nil {
				Skip(t, "ovmf is not installed: "+err.Error())
			}
		}
	}
}

func TestParseMemory(t *testing.T) {
	for text, want := range map[string]int{"1G": 1024, "768M": 768, "512": 512, "2g": 2048, "1GiB": 1024} {
		if got, err := ParseMemory(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1G", "1T", "10M", "1.5G", "9999999999999999999G"} {
		if got, err := ParseMemory(text); err == nil {
			t.Errorf("%q is taken for %d MiB", text, got)
		}
	}
}
