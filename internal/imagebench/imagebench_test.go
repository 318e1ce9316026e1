package imagebench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// TestRun measures a small tree, with a shell script in the place of viver.
func TestRun(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	dir := t.TempDir()
	o := Options{Tree: filepath.Join(dir, "tree.tar"), Viver: filepath.Join(dir, "viver"), Self: filepath.Join(dir, "self"), Out: filepath.Join(dir, "out"), Level: 1, Print: &strings.Builder{}}
	testlinux.Run(t, "tar", "-C", testlinux.Write(t, testlinux.Files(t)), "-cf", o.Tree, ".")
	for name, script := range map[string]string{
		o.Viver: "#!/bin/sh\n[ \"$1 $2 $4\" = 'image build -o' ] && mkdir \"$5\" && echo >\"$5/root.squashfs\"\n",
		o.Self:  "#!/bin/sh\n[ \"$1\" = root ] && echo >\"$3\"\n",
	} {
		if err := os.WriteFile(name, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if names := testlinux.Names(t, o.Out); !slices.Equal(names, []string{rowsFile, tableFile}) {
		t.Errorf("it leaves %q", names)
	}
	docs := t.TempDir()
	if err := Publish(o.Out, docs); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(docs, rowsFile))
	if err != nil {
		t.Fatal(err)
	}
	var rows []Row
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Name())
		if r.Runs != defaultRuns || r.Fastest > r.Seconds || r.Seconds > r.Slowest || r.Seconds == 0 || r.RootBytes == 0 || r.Peak == 0 {
			t.Errorf("a row without its figures: %+v", r)
		}
	}
	if want := []string{"archive:mksquashfs", "archive:root", "archive:image", "directory:mksquashfs", "directory:root", "directory:image"}; !slices.Equal(names, want) {
		t.Errorf("rows %q", names)
	}
}

// A command that fails ends the benchmark with what it said.
func TestRunFails(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	dir := t.TempDir()
	o := Options{Tree: filepath.Join(dir, "tree.tar"), Viver: "false", Self: filepath.Join(dir, "self"), Out: filepath.Join(dir, "out"), Level: 1, Print: &strings.Builder{}}
	testlinux.Run(t, "tar", "-C", testlinux.Write(t, testlinux.Files(t)), "-cf", o.Tree, ".")
	if err := os.WriteFile(o.Self, []byte("#!/bin/sh\necho why >&2; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "root of the archive: exit status 3: why") {
		t.Errorf("error %v", err)
	}
	if names := testlinux.Names(t, o.Out); len(names) != 0 {
		t.Errorf("it leaves %q", names)
	}
	if err := Publish(o.Out, dir); err == nil || !strings.Contains(err.Error(), "run the benchmark first") {
		t.Errorf("published what was not measured: %v", err)
	}
}

func TestVerdict(t *testing.T) {
	lines := verdict([]Row{
		{Source: "archive", Task: Plain, Seconds: 4, CPU: 8}, {Source: "archive", Task: Root, Seconds: 5, CPU: 9},
		{Source: "archive", Task: Image, Seconds: 5, CPU: 16}, {Source: "directory", Task: Root, Seconds: 5},
	})
	text := lines.Text()
	if len(lines) != 4 || strings.Count(text, "TOO LITTLE") != 2 || strings.Count(text, "reached") != 2 {
		t.Errorf("verdict:\n%s", text)
	}
	if r := median([]Row{{Seconds: 3}, {Seconds: 1}, {Seconds: 2}}); r.Seconds != 2 || r.Fastest != 1 || r.Slowest != 3 || r.Runs != 3 {
		t.Errorf("median %+v", r)
	}
}
