package protect

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actAs says what TestMain is to be: tick.
const actAs = "VIVER_TEST_ACT_AS"

// TestMain is also a process for a test to stop.
func TestMain(m *testing.M) {
	if os.Getenv(actAs) == "tick" {
		tick()
	}
	os.Exit(m.Run())
}

// tick is the process that the test stops.
func tick() {
	if err := refuseToStop(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		fmt.Println("tick")
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAStoppedProcessGoesOn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), actAs+"=tick")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	for range 3 { // stops, and goes on, as often as it is told to
		if !lines.Scan() || lines.Text() != "tick" {
			t.Fatalf("the process says %q, %v", lines.Text(), lines.Err())
		}
		if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// What it had said before is read first; then it must say more.
		for range 100 {
			if !lines.Scan() {
				t.Fatal("the process ended")
			}
		}
	}
}
