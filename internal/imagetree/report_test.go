package imagetree

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"viver.lan/internal/exclude"
)

func TestReport(t *testing.T) {
	r := NewReport()
	more := r.LeftOut(exclude.Swap, "swap\nfile", 1<<20)
	more(1)
	r.LeftOut(exclude.Recreated, "proc/1", 0)
	r.Emptied(exclude.SigningKey, "srv/key", 300)
	r.Changed(FileChanged, "var/log/x: it shrank", 20<<10)
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `# left out, swap space, which holds a machine's memory: 1, 1048577 bytes (--keep brings it)
1048577	"/swap\nfile"
# left out, made again at every boot: 1, 0 bytes
0	/proc/1
# emptied, a key that signs images, and an image is no secret: 1, 300 bytes
300	/srv/key
# files that changed while they were read: 1, 20480 bytes
20480	/var/log/x: it shrank
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	b.Reset()
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	again, err := ParseReport(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := again.Write(&b); err != nil || b.String() != want {
		t.Errorf("read again, it is:\n%s%v", b.String(), err)
	}
	lines := []string{
		`left out, swap space, which holds a machine's memory: 1, 1.0 MiB: "/swap\nfile" (--keep brings it)`,
		"emptied, a key that signs images, and an image is no secret: 1, 300 bytes: /srv/key",
		"files that changed while they were read: 1, 20 KiB: /var/log/x: it shrank",
	}
	if got := r.Lines(); !slices.Equal(got, lines) {
		t.Errorf("got %q", got)
	}
}

func TestReportAboutFile(t *testing.T) {
	r := NewReport()
	r.LeftOut(exclude.Swap, "var/swap", 1)
	r.LeftOut(exclude.Chosen, "srv/data", 2)
	r.Changed(ACLDropped, "srv/data.old (mode 0640)", 0)
	r.Changed(FileChanged, "var/log/x: it shrank", 3)
	for name, want := range map[string]int{
		"/var/swap": 1, "/var": 2, "var/": 2, "/srv/data": 1, "/srv/data/deep/file": 1, "/srv/data.old": 1, "/var/log/x": 1, "/var/log/xy": 0, "/etc": 0, "/": 4,
	} {
		var got int
		for _, d := range r.About(name).Differences {
			got += d.Count
		}
		if got != want {
			t.Errorf("about %s: %d, want %d", name, got, want)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add([]byte(`{"differences":[{"reason":"x","count":1,"bytes":2,"files":[{"name":"a","bytes":2}]},null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseReport(data); err == nil {
			r.Lines()
			r.About("a")
			if err := r.Write(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
}
