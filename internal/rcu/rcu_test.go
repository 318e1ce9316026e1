package rcu

import (
	"os"
	"strings"
	"testing"

	"viver.lan/internal/machine/machinetest"
)

func TestOnlyOursIsTakenBack(t *testing.T) {
	for _, tt := range []struct{ before, booting, after string }{
		{"0\n", ours, no},
		{"1\n", "1", "1"}, // the operator wants it for ever
	} {
		m := machinetest.New(t, map[string]string{file: tt.before})
		for _, step := range []struct {
			name string
			do   func(machine) error
			want string
		}{{"Expedite", Expedite, tt.booting}, {"Relax", Relax, tt.after}, {"Relax", Relax, tt.after}} {
			if err := step.do(m); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
			if is, err := os.ReadFile(m.Path(file)); err != nil || strings.TrimSpace(string(is)) != step.want {
				t.Errorf("%q after %s: %q, %v, want %q", tt.before, step.name, is, err, step.want)
			}
		}
	}
}

func TestKernelsForOneProcessorHaveNothingToChange(t *testing.T) {
	if m := machinetest.New(t, nil); Expedite(m) != nil || Relax(m) != nil {
		t.Error("an error where there is no such file")
	}
}
