package show

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFilesAreCountedPerMachine(t *testing.T) {
	const log = `ICECC[1] 2026-11-30 11:41:23: building myself, but telling localhost
ICECC[2] 2026-11-30 11:41:23: Have to use host 10.0.0.2:10245 - Job ID: 4 - env: x86_64
ICECC[3] 2026-11-30 11:41:23: Have to use host 10.0.0.21:10245 - Job ID: 5 - env: x86_64
ICECC[3] 2026-11-30 11:41:24: got exception Error 14 - error reading message from remote (10.0.0.21)
`
	on, again := compiled(log, []string{"10.0.0.1", "10.0.0.2", "10.0.0.21", "10.0.0.3"})
	if !slices.Equal(on, []int{1, 1, 1, 0}) || again != 1 {
		t.Errorf("%v, %d again", on, again)
	}
}

func TestProcessesAreCountedPerMachine(t *testing.T) {
	const said = "rank 1 of 3 on b: 10 strips in 0.1 s\nrank 0 of 3 on a: 10 strips in 0.1 s\nrank 2 of 3 on a: 10 strips in 0.1 s\npi is 3.141592654\n"
	on, err := computed(said, []string{"a", "b", "ab"})
	if err != nil || !slices.Equal(on, []int{2, 1, 0}) {
		t.Errorf("%v, %v", on, err)
	}
	for _, wrong := range []string{"", strings.Replace(said, "3.141592654", "3.141592600", 1), "pi is\n"} {
		if _, err := computed(wrong, []string{"a"}); err == nil {
			t.Errorf("%q is right", wrong)
		}
	}
}

func TestTasksAreCountedPerMachine(t *testing.T) {
	const said = "a 11734\nb 10310\na 9860\nb 9634\na 9448\na 9252\na 9210\na 9050\n"
	on, err := counted(said, []string{"a", "b", "c"})
	if err != nil || !slices.Equal(on, []int{6, 2, 0}) {
		t.Errorf("%v, %v", on, err)
	}
	for _, wrong := range []string{"", strings.Replace(said, "9050", "9051", 1), strings.Replace(said, "b 9634", "x 9634", 1), "a 78498\n"} {
		if _, err := counted(wrong, []string{"a", "b", "c"}); err == nil {
			t.Errorf("%q is right", wrong)
		}
	}
}

func TestWorkIsShown(t *testing.T) {
	machines := []Machine{{Name: "first"}, {Name: "node1"}, {Name: "node2"}}
	done := []Work{
		{What: filesCompiled, Machines: 1, Took: 80 * time.Second, On: []int{34}},
		{What: batchTasks, Machines: 1, Took: 9 * time.Second, On: []int{8}},
		{What: filesCompiled, Machines: 3, Took: 61 * time.Second, On: []int{14, 20, 0}},
		{What: processes, Machines: 3, Err: errors.New("mpirun: no")},
		{What: filesCompiled, Machines: 3, Lost: "node2", Took: 75 * time.Second, On: []int{14, 0, 20}, Again: 2},
	}
	uncounted := Work{What: filesCompiled, Machines: 2}
	if c := workChecks([]Work{uncounted}); c[0].Err == nil {
		t.Error("a build of which nobody knows where is taken for one of all")
	}
	var b strings.Builder
	if err := writeWork(&b, machines, done); err != nil {
		t.Fatal(err)
	}
	const want = `DONE TOGETHER                            first   node1   node2   SECONDS
1 machine               files compiled   34      -       -       80
                        batch tasks      8       -       -       9
3 machines              files compiled   14      20      0       61
node2 loses its power   files compiled   14      0       20      75

2 files were lost with a machine, and compiled again on first.
`
	if !strings.HasPrefix(b.String(), want) {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
	var failed []string
	for _, c := range workChecks(done) {
		if c.Err != nil {
			failed = append(failed, c.What+": "+c.Err.Error())
		}
	}
	if want := []string{"3 machines: files compiled: none on node2", "3 machines: MPI processes: mpirun: no"}; !slices.Equal(failed, want) {
		t.Errorf("failed are %q, want %q", failed, want)
	}
}
