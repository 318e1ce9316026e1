package supervise

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/thread"
)

// A program gets its nice value, in a session of its own with the same one, and the
// daemons' timer slack, at each start; the supervisor keeps its own. One that is not allowed says so in the log,
// and the program runs.
func TestProgramHasItsPriority(t *testing.T) {
	ours := priorityOf(t, os.Getpid())
	values := []int{19}
	if err := thread.Run(func() error { return niceSelf(agentNice) }); err != nil {
		t.Logf("lower values take a right that we do not have: %v", err)
	} else {
		values = append(values, agentNice)
	}
	for _, value := range values {
		got, log := startAs(t, value)
		want := fmt.Sprintf("%d own %d", value, timerSlack.Nanoseconds())
		if got != want || strings.Contains(log, "no priority") {
			t.Errorf("nice value %d: the program has %q, want %q\n%s", value, got, want, log)
		}
	}
	if now := priorityOf(t, os.Getpid()); now != ours {
		t.Errorf("the supervisor had nice value %d and has %d", ours, now)
	}
	if got := agent("/bin/true", nil); got.nice != agentNice || got.nice >= 0 {
		t.Errorf("the agent's nice value is %d", got.nice)
	}
}

// startAs starts a program with a nice value. It returns what that finds of itself:
// its value, and whether its session is its own, when the session has that value too, and
// its timer slack in nanoseconds.
func startAs(t *testing.T, value int) (found, log string) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	script := fmt.Sprintf(`n=0
while [ -e /proc/$$/autogroup ] && ! grep -q 'nice %d$' /proc/$$/autogroup; do
  n=$((n+1)); [ $n -lt 1000 ] || { echo "the session's value is another: $(cat /proc/$$/autogroup)"; exit; }
  sleep 0.01
done
set -- $(sed 's/.*) //' /proc/$$/stat)
[ $4 = $$ ] && session=own || session=other
read -r slack </proc/$$/timerslack_ns
printf '%%s %%s %%s' ${17} $session $slack`, value)
	var said strings.Builder
	s := &supervisor{
		programs: []program{{name: "sh", path: "/bin/sh", args: []string{"-c", script}, nice: value}},
		output:   out, started: func(string, int) {}, shuttingDown: func() bool { return true }, backoff: time.Millisecond,
		log: slog.New(slog.NewTextHandler(&said, nil)),
	}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text), said.String()
}

// priorityOf is the nice value in proc_pid_stat(5).
func priorityOf(t *testing.T, pid int) (value int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	if _, err := fmt.Sscan(strings.Fields(rest)[16], &value); err != nil {
		t.Fatal(err)
	}
	return value
}
