//go:build !node

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/kernelconfig"
)

// enough is the configuration of a kernel that has all that is asked for.
func enough(t *testing.T) string {
	t.Helper()
	options, err := kernelconfig.Options()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, o := range options {
		b.WriteString("CONFIG_" + o.Names()[0] + "=y\n")
	}
	return b.String()
}

func TestKernelCheck(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", enough(t))
	bad := file("bad", strings.Replace(enough(t), "CONFIG_BLK_DEV_NBD=y\n", "# CONFIG_BLK_DEV_NBD is not set\n", 1))
	none := file("none", "hello\n")
	// Debian's kernel, of which testdata has the tables about some modules.
	tables, err := filepath.Glob("../../internal/hardware/testdata/debian-12/lib/modules/*")
	if err != nil || len(tables) != 1 {
		t.Fatalf("%q, %v", tables, err)
	}
	const machine = "../../internal/hardware/testdata/machines/proliant-dl360-gen10.txt"
	for _, c := range []struct {
		name, kernel, release, machine string
		says                           []string
		err                            string
	}{
		{"enough", good, "", "", []string{"ok  CONFIG_BLK_DEV_NBD  ", "built in"}, ""},
		{"no NBD", bad, "", "", []string{"MISSING  CONFIG_BLK_DEV_NBD ", "absent", "the root disk is a network block device"}, "1 of"},
		{"no configuration", none, "", "", nil, "no line begins with CONFIG_"},
		{"nothing there", filepath.Join(dir, "gone"), "", "", nil, "no such file"},
		{"no kernel", dir, "", "", nil, "has no kernel in the usual places"},
		{"no such release", dir, "6.1.0", "", nil, "no lib/modules/6.1.0"},
		{"a machine and no modules", good, "", machine, nil, "--machine wants"},
		// The tables of the test have the drivers of machines only, so nbd is missing.
		{"modules", tables[0], "", "", []string{"MISSING  CONFIG_BLK_DEV_NBD", "?        CONFIG_INET"}, "are missing"},
		{"a machine", tables[0], "", machine, []string{"smartpqi", "drivers.img", "mlx5_core", "nics.img"}, "are missing"},
		{"a machine of another kind", tables[0], "", none, nil, "names no device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := checkKernel(c.kernel, c.release, c.machine)
			var out strings.Builder
			if err == nil {
				err = errors.Join(r.write(&out), r.verdict())
			}
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, want %q", err, c.err)
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in\n%s", want, &out)
				}
			}
		})
	}
}
