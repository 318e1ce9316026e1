package show

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestJobsAreCountedPerMachine(t *testing.T) {
	const log = `ICECC[1] 2026-11-30 11:41:23: building myself, but telling localhost
ICECC[2] 2026-11-30 11:41:23: Have to use host 10.0.0.2:10245 - Job ID: 4 - env: x86_64
ICECC[3] 2026-11-30 11:41:23: Have to use host 10.0.0.21:10245 - Job ID: 5 - env: x86_64
ICECC[3] 2026-11-30 11:41:24: got exception Error 14 - error reading message from remote (10.0.0.21)
`
	j := jobsIn(log, []string{"10.0.0.2", "10.0.0.21", "10.0.0.3"})
	if j.Home != 1 || j.Again != 1 || len(j.Sent) != 3 || j.Sent[0] != 1 || j.Sent[1] != 1 || j.Sent[2] != 0 {
		t.Errorf("%+v", j)
	}
}

func TestBuildsAreShown(t *testing.T) {
	builds := []Build{
		{Machines: 1, Took: 80 * time.Second, Jobs: Jobs{Home: 34}},
		{Machines: 3, Took: 61 * time.Second, Jobs: Jobs{Home: 14, Sent: []int{20, 0}}},
		{Machines: 3, Lost: "node2", Took: 75 * time.Second, Jobs: Jobs{Home: 14, Sent: []int{10, 10}, Again: 2}},
		{Machines: 3, Err: errors.New("make: no")},
	}
	var b strings.Builder
	if err := writeBuilds(&b, Names(3), builds); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"with 1 machines 34 - - 0 80\n", "with 3 machines 14 20 0 0 61\n", "node2 loses its power 14 10 10 2 75\n"} {
		var lines strings.Builder
		for line := range strings.Lines(b.String()) {
			lines.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
		}
		if !strings.Contains(lines.String(), want) {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
	var failed []bool
	for _, c := range buildChecks(builds) {
		failed = append(failed, c.Err != nil)
	}
	if len(failed) != 4 || failed[0] || !failed[1] || failed[2] || !failed[3] {
		t.Errorf("failed: %v", failed)
	}
}
