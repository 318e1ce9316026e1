package imagetree

import (
	"bytes"
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
	want := `# left out, swap space, which holds a machine's memory: 1, 1048577 bytes
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
	lines := []string{
		`left out, swap space, which holds a machine's memory: 1, 1024 KiB: "/swap\nfile" (--keep brings it)`,
		"emptied, a key that signs images, and an image is no secret: 1, 300 bytes: /srv/key",
		"files that changed while they were read: 1, 20 KiB: /var/log/x: it shrank",
	}
	if got := r.Lines(); !slices.Equal(got, lines) {
		t.Errorf("got %q", got)
	}
}
