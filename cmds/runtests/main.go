// Runtests runs a tier of the project's tests and shows how far it is. It is what
// ./build.sh test runs:
//
//	runtests [-full] [-check] [-log DIR] TIER [WORD...]
//
// The words are names of tests, packages and flags of go test. The log goes to
// DIR/TIER.log, tables that tests make to DIR/TIER.tables. It exits with 1 when
// tests fail, and also, where the environment has CI, when one is skipped; with 2
// when no test is meant.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"viver.lan/internal/testrun"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

// exitCode says what went wrong and returns the exit code.
func exitCode(err error, errs io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(errs, "runtests:", err)
	if errors.Is(err, testrun.ErrFailed) {
		return 1
	}
	return 2
}
