package bootbench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/bench/figures"
	"viver.lan/qemu-tests/guests/execproto"
)

func TestChoose(t *testing.T) {
	for words, want := range map[string]string{
		"":                "disk:1 nbd:1 live:1 viver:1 disk:2 nbd:2 live:2 viver:2 viver:uefi viver:uefi-secure room:tiny room:debian",
		"viver:uefi":      "viver:uefi",
		"room":            "room:tiny room:debian",
		"nbd disk:2":      "nbd:1 disk:2 nbd:2",
		"disk:1 disk":     "disk:1 disk:2",
		"viver:uefi-secu": "",
		"vive":            "",
	} {
		got, err := choose(strings.Fields(words), 0)
		if (err != nil) != (want == "") || strings.Join(names(got), " ") != want {
			t.Errorf("%q chooses %v, %v; want %s", words, names(got), err, want)
		}
	}
	if _, err := choose([]string{"usb"}, 0); err == nil || !strings.Contains(err.Error(), "viver:2") {
		t.Errorf("an unknown row gives %v, which does not list the rows", err)
	}
	for _, word := range quick() {
		if _, err := choose([]string{word}, 1); err != nil {
			t.Error(err)
		}
	}
}

// frame is an Ethernet frame with IPv4 and the beginning of TCP or UDP.
func frame(protocol byte, src, dst uint16) []byte {
	f := make([]byte, 14+20+8)
	f[12], f[13] = 0x08, 0x00
	f[14], f[14+9] = 0x45, protocol
	f[34], f[35], f[36], f[37] = byte(src>>8), byte(src), byte(dst>>8), byte(dst)
	return f
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		what  string
		frame []byte
		want  service
	}{
		{"HTTP", frame(6, 80, 40000), bootFiles},
		{"HTTP of a node", frame(6, 6880, 40000), bootFiles},
		{"pieces to who dialled", frame(6, 6881, 40000), rootDisk},
		{"pieces to who was dialled", frame(6, 40000, 6881), rootDisk},
		{"NBD", frame(6, 10809, 40000), rootDisk},
		{"the root by HTTP", frame(6, 8000, 40000), rootDisk},
		{"TFTP data", frame(17, 33333, 2070), bootFiles},
		{"DHCP", frame(17, 67, 68), otherService},
		{"gossip", frame(17, 7946, 7946), otherService},
		{"SSH", frame(6, 22, 40000), otherService},
		{"ARP", append(make([]byte, 12), 0x08, 0x06, 0, 1), otherService},
		{"half a header", frame(6, 80, 1)[:35], otherService},
		{"a lie about the header's length", append(append(make([]byte, 12), 0x08, 0x00, 0x4f), make([]byte, 19)...), otherService},
		{"nothing", nil, otherService},
	} {
		if got := classify(test.frame); got != test.want {
			t.Errorf("%s is of service %d, want %d", test.what, got, test.want)
		}
	}
}

func TestMetersCountTheirMachineOnly(t *testing.T) {
	var m meters
	one, err := m.watch("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	f := frame(6, 6881, 40000)
	copy(f, []byte{0x52, 0x54, 0, 0, 0, 1})
	m.see(f)
	copy(f, []byte{0x52, 0x54, 0, 0, 0, 2})
	m.see(f)
	m.see(nil)
	if got := one.bytes[rootDisk].Load(); got != int64(len(f)) {
		t.Errorf("%d bytes of the root, want %d", got, len(f))
	}
	if _, err := m.watch("nobody"); err == nil {
		t.Error("an address that is none is watched")
	}
}

func TestTimeline(t *testing.T) {
	at := time.Unix(1000, 0)
	line := &timeline{samples: []sample{{at: at, received: 1}, {at: at.Add(time.Second), received: 2}}}
	for after, want := range map[time.Duration]int64{-time.Second: 0, 0: 1, 500 * time.Millisecond: 1, time.Second: 2, time.Hour: 2} {
		if got := line.until(at.Add(after)).received; got != want {
			t.Errorf("after %v: %d bytes, want %d", after, got, want)
		}
	}
}

// What a Debian under Linux 6.1 wrote, shortened.
const (
	statText    = "cpu  300 20 500 9000 70 11 22 0 0 0\ncpu0 300 20 500 9000 70 11 22 0 0 0\nintr 1\n"
	uptimeText  = "31.50 20.10\n"
	disksText   = "   7       0 loop0 5 0 40 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n  43       0 nbd0 1200 0 58160 900 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
	meminfoText = "MemTotal:         999424 kB\nMemFree:          500000 kB\nMemAvailable:     794624 kB\n"
	systemdText = "18250000\n"
)

func processList(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, p := range []execproto.Process{
		{PID: 1, Comm: "systemd", Argv: []string{"/sbin/init"}, Seconds: 2, ChildSeconds: 3},
		{PID: 2, Comm: "kthreadd", Argv: []string{}, Seconds: 0.5},
		{PID: 90, Comm: "vfield", Argv: []string{"@vfield", "vfield"}, Seconds: 2},
		{PID: 95, Comm: "sshd", Argv: []string{"sshd: /usr/sbin/sshd -D"}, Seconds: 0.25},
	} {
		line, err := execproto.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
	}
	return b.String()
}

func TestGuest(t *testing.T) {
	at := time.Unix(2000, 0)
	g, err := parseGuest(at, uptimeText, statText, disksText, "nbd0", meminfoText, processList(t), systemdText)
	if err != nil {
		t.Fatal(err)
	}
	if want := at.Add(-31500 * time.Millisecond); !g.kernel.Equal(want) || g.init != 18250*time.Millisecond {
		t.Errorf("kernel at %v, want %v; init after %v", g.kernel, want, g.init)
	}
	if math.Abs(g.busy-8.53) > 1e-9 || g.reads != 1200 || g.readBytes != 58160*512 || g.memoryUsed != 200 {
		t.Errorf("%+v", g)
	}
	by := g.byProcess()
	if by["@vfield"] != 2 || by["init"] != 2 || by[kernelThreads] != 0.5 || by["sshd"] != 0.25 || math.Abs(by[endedOnes]-3.78) > 1e-9 {
		t.Errorf("by process: %v", by)
	}
}

func TestGuestThatTellsNonsense(t *testing.T) {
	good := []string{uptimeText, statText, disksText, meminfoText, processList(t), systemdText}
	for i, what := range []string{"uptime", "stat", "diskstats", "meminfo", "processes", "systemd"} {
		bad := slices.Clone(good)
		bad[i] = "?\n"
		if _, err := parseGuest(time.Now(), bad[0], bad[1], bad[2], "nbd0", bad[3], bad[4], bad[5]); err == nil {
			t.Errorf("%s of %q is believed", what, bad[i])
		}
	}
}

// exampleRows are rows as they are measured, in part.
func exampleRows() []Row {
	row := func(name string, kernel, init, login figures.Value) Row {
		specs, _ := choose([]string{name}, 0)
		r := newRow(specs[0])
		r.OnToKernel, r.KernelToInit, r.InitToLogin, r.OnToLogin = kernel, init, login, kernel+init+login
		r.CPU, r.CPUOf = 30, map[string]figures.Value{"init": 2}
		return r
	}
	disk, nbd, viver := row("disk:1", 1, 5, 24), row("nbd:1", 8, 15, 37), row("viver:1", 6, 7, 22)
	viver.VFieldShare, viver.RootBytes, viver.BootFileBytes = 0.1, 21e6, 17e6
	viver.CPUOf["@vfield"] = 3
	specs, _ := choose([]string{"room:tiny"}, 0)
	room := newRow(specs[0])
	room.FirstLogin, room.LastLogin = 30, 33
	return []Row{disk, nbd, viver, room}
}

func TestMedian(t *testing.T) {
	row := func(login figures.Value) Row {
		r := exampleRows()[0]
		r.OnToLogin = login
		return r
	}
	m := median([]Row{row(30), row(10), row(20)})
	if m.OnToLogin != 20 || m.Fastest != 10 || m.Slowest != 30 || m.Runs != 3 {
		t.Errorf("%+v", m)
	}
	if m := median([]Row{row(30), row(10)}); m.OnToLogin != 10 {
		t.Errorf("of two runs that with %v s", m.OnToLogin)
	}
}

// The keys of a row are a format that others read.
func TestKeysOfARow(t *testing.T) {
	text, err := figures.Encode(exampleRows())
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) != 4 {
		t.Fatalf("%v in %s", err, text)
	}
	want := strings.Fields("boot_file_bytes cpu_s cpu_s_by_process cpus firmware first_login_s first_node_host_cpu_s first_node_sent_bytes image image_bytes independent_after_last_login_s init_to_login_s kernel_to_init_s last_login_s machines memory_mib memory_used_mib name net_bytes net_bytes_until_kernel on_to_kernel_s on_to_login_max_s on_to_login_min_s on_to_login_s others_busy root_bytes root_read_bytes root_reads runs system vfield_cpu_share")
	if got := slices.Sorted(maps.Keys(rows[0])); !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
	if rows[0]["first_login_s"] != nil || rows[3]["on_to_login_s"] != nil || rows[3]["last_login_s"] != 33.0 {
		t.Errorf("%v\n%v", rows[0], rows[3])
	}
}

func TestVerdict(t *testing.T) {
	got := map[string]float64{}
	for _, l := range verdict(exampleRows()) {
		got[l.What] = math.Round(l.Value*1000) / 1000
	}
	want := map[string]float64{"kernel to login / local disk, 1 CPU": 1, "power-on to login / local disk, 1 CPU": 1.167,
		"power-on to login / NBD root, 1 CPU": 0.583, "root fetched until login, MB": 21, "boot files per machine, MB": 17,
		"power-on to kernel, BIOS, s": 6, "@vfield's share of CPU until login": 0.1, "last / first login, room of 8 tiny": 1.1}
	if !maps.Equal(got, want) {
		t.Errorf("verdict %v, want %v", got, want)
	}
}

func TestPageAndTerminal(t *testing.T) {
	page := markdown(exampleRows(), []string{"live:1: no answer"}, []string{"a note"}, "1 processor", time.Unix(0, 0))
	for _, want := range []string{"| viver:1 | 6.0 | 7.0 | 22.0 | 35.0 |", "| room:tiny | 8 | 30.0 | 33.0 | 1.10 |", "| @vfield | - | - | 3.0 |",
		"Not measured: live:1: no answer", "a note", "| kernel to login / local disk, 1 CPU | 1 | ≤ 0.9 | ≤ 1.05 |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
	if line := terminalLine(exampleRows()[3]); !strings.Contains(line, "last / first: 1.10;") {
		t.Errorf("a room's line: %s", line)
	}
}

func TestPictureIsWellFormed(t *testing.T) {
	d := xml.NewDecoder(bytes.NewReader(picture(exampleRows())))
	bars := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if want := 1 + 3 + 3*3; bars != want { // the paper, the legend, three boots
		t.Errorf("%d rectangles in the picture, want %d", bars, want)
	}
}

func TestPublishWantsAllRows(t *testing.T) {
	out, docs := t.TempDir(), filepath.Join(t.TempDir(), "docs")
	if err := Publish(out, docs); err == nil || !strings.Contains(err.Error(), "./build.sh bench boot") {
		t.Errorf("nothing was measured: %v", err)
	}
	write := func(rows []Row) {
		text, err := figures.Encode(rows)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{rowsFile: text, tableFile: []byte("table"), pictureFile: []byte("picture")} {
			if err := os.WriteFile(filepath.Join(out, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(exampleRows())
	if err := Publish(out, docs); err == nil || !strings.Contains(err.Error(), "room:debian") {
		t.Errorf("rows are missing: %v", err)
	}
	var all []Row
	for _, s := range plan() {
		all = append(all, newRow(s))
	}
	write(all)
	if err := Publish(out, docs); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(docs, tableFile)); err != nil || string(text) != "table" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRowsMeasuredAgainTakeTheirPlaces(t *testing.T) {
	out := t.TempDir()
	b := &bench{options: Options{Out: out, Again: true}, log: io.Discard, progress: &progress{out: io.Discard}}
	specs, err := choose([]string{"disk:1"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.kept(specs); err == nil || !strings.Contains(err.Error(), "./build.sh bench boot") {
		t.Errorf("there is no result: %v", err)
	}
	if err := b.write(exampleRows(), nil); err != nil {
		t.Fatal(err)
	}
	rows, err := b.kept(specs)
	if _, found := find(rows, "disk:1"); err != nil || found || len(rows) != len(exampleRows())-1 {
		t.Errorf("%d rows are kept, %v", len(rows), err)
	}
	if room, _ := find(rows, "room:tiny"); !room.OnToLogin.Missing() {
		t.Errorf("what a row does not have is %v when it is read again", room.OnToLogin)
	}
	again := newRow(specs[0])
	if got := inOrder(append(rows, again)); got[0].Name != "disk:1" || len(got) != len(exampleRows()) {
		t.Errorf("the row is not in its place: %v", got)
	}
	if len(b.notes) != 1 || !strings.Contains(b.notes[0], "disk:1") {
		t.Errorf("the page does not say so: %q", b.notes)
	}
}

func TestMissingFilesAreNamedBeforeAnythingBoots(t *testing.T) {
	specs, err := choose([]string{"disk:1"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Images: t.TempDir(), Baselines: t.TempDir()}
	if err := o.check(specs); err == nil || !strings.Contains(err.Error(), "./build.sh bench boot") {
		t.Errorf("%v", err)
	}
}
