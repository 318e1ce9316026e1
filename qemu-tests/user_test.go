package scenarios

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// asUser is run as root in a mount namespace of its own: it shows the ordinary
// user the module cache, which may lie in root's home, and becomes that user.
const asUser = `set -e
mount --bind "$MODULES" "$HOME/modules"
cd "$HOME/checkout"
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`

// With the tools installed, an ordinary user builds the tiny image and a
// medium from a checkout of their own, and boots a machine from it.
//
//	[ CD ]──[ first ]──┤
func TestOrdinaryUserBuildsAndBoots(t *testing.T) {
	t.Parallel()
	harness.Need(t, harness.QEMU, "unshare", "setpriv", "tar")
	if os.Getuid() != 0 {
		harness.Skip(t, "only root can become an ordinary user; here the whole run is one's, and the other scenarios boot what it built")
	}
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	checkout := filepath.Join(home, "checkout")
	for _, dir := range []string{filepath.Join(home, "modules"), filepath.Join(checkout, "images", "out")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The programs were built by this run; packages need not be fetched again.
	shell(t, root, "git ls-files -z | tar c --null -T - | tar x -C "+checkout)
	shell(t, root, "cp -r images/out/bin images/out/lib "+checkout+"/images/out/ && mkdir -p "+checkout+"/images/out/cache && cp -r images/out/cache/deb images/out/cache/apt "+checkout+"/images/out/cache/")
	shell(t, root, "chown -R 65534:65534 "+home+" && chmod 755 "+home+" "+filepath.Dir(home))

	modules, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	environment := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "MODULES=" + strings.TrimSpace(string(modules)),
		"GOMODCACHE=" + home + "/modules", "GOCACHE=" + home + "/build", "GOFLAGS=-buildvcs=false", "TMPDIR=" + home}
	user := func(argv ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "sh", "-c", asUser, "sh"}, argv...)...)
		cmd.Env = environment
		return cmd
	}
	build := user("sh", "-ec", "images/tiny/build.sh images/out/trees/tiny && images/out/bin/viver image build images/out/trees/tiny -o images/out/tiny --modules none --level 1 && images/out/bin/viver medium build images/out/tiny -o tiny.iso")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build as an ordinary user: %v\n%s", err, text)
	}

	boot := user(out(t, "bin", "network"), "tiny.iso", "-n", "1")
	shown, err := boot.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	boot.Stderr = boot.Stdout
	if err := boot.Start(); err != nil {
		t.Fatal(err)
	}
	interrupt := func() { _ = boot.Process.Signal(syscall.SIGINT) } // it may have ended by itself
	var text strings.Builder
	for lines := bufio.NewScanner(shown); lines.Scan(); {
		fmt.Fprintln(&text, lines.Text())
		// It shows progress, and that it gave up, by itself.
		if strings.Contains(lines.Text(), "handover") || strings.Contains(lines.Text(), "The machines run on") {
			interrupt()
		}
	}
	err = boot.Wait()
	if !strings.Contains(text.String(), "handover") {
		t.Errorf("no machine reached the handover: %v\n%s", err, text.String())
	}
}

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, text)
	}
}
