package klog

import (
	"bytes"
	"strings"
	"testing"
)

func TestOneRecordIsOneLine(t *testing.T) {
	var out bytes.Buffer
	log := New(&out, "uinit").With("nic", "eth0")
	log.Debug("not shown")
	log.Info("network: up", "address", "10.77.0.1/16")
	log.Warn("no answer")
	want := "<5>uinit: msg=\"network: up\" nic=eth0 address=10.77.0.1/16\n<4>uinit: msg=\"no answer\" nic=eth0\n"
	if out.String() != want {
		t.Errorf("log\n got %q\nwant %q", out.String(), want)
	}
}

func TestALongLineIsCut(t *testing.T) {
	var out bytes.Buffer
	New(&out, "x").Error(strings.Repeat("y", 4000))
	if out.Len() > maxRecord || !strings.HasSuffix(out.String(), "...\n") {
		t.Errorf("record of %d bytes ends %q", out.Len(), out.String()[out.Len()-5:])
	}
}

func TestUptimeRuns(t *testing.T) {
	if Uptime() <= 0 {
		t.Error("no uptime")
	}
}
