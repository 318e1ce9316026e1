// Command viver is the operator's command: it builds images and media and shows the
// state of running nodes. It only connects flags to packages.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ending := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1) ignores it
		ending = append(ending, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ending...)
	// A second one ends it at once, whatever it waits for.
	context.AfterFunc(ctx, stop)
	code := run(ctx, environment{args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, executable: os.Executable, configDir: configDir,
		become: func(program string, args []string) error { return syscall.Exec(program, args, os.Environ()) }})
	stop()
	os.Exit(code)
}
