package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/testrun"
	"viver.lan/internal/testtable"
)

// tiers are the tiers of tests. Scenarios that take very long are for a full run, and
// run one after the other; of the rest as many run at once as package harness has
// slots for, since their machines wait for half of the time.
// TestDeviceMapper... are run by a scenario, in a machine that has device-mapper.
// Package archtest reads source and runs nothing at once; under the race detector
// it takes minutes.
func tiers(full bool) []testrun.Tier {
	products := []string{"./internal/...", "./cmds/..."}
	unit := append(slices.Clone(products), "./uinit/...", "./kernelconfig/...", "./images/...", "./qemu-tests/guests/...",
		"./qemu-tests/harness/bootbench/...", "./qemu-tests/harness/lan/...", "./qemu-tests/harness/outsider/...", "./qemu-tests/harness/media/...",
		"./qemu-tests/harness/show/...", "./qemu-tests/harness/stall/...")
	const netns, elsewhere, long = "^TestNetns", "^Test(Netns|DeviceMapper)", "^TestFull"
	qemu := testrun.Tier{Name: "qemu", Packages: []string{"./qemu-tests/harness", "./qemu-tests"}, Except: long,
		Flags: []string{"-timeout=90m", "-p=1", "-parallel=3"}, Each: true}
	if full {
		qemu.Except = ""
	}
	return []testrun.Tier{
		{Name: "unit", Packages: unit, Except: elsewhere, Flags: []string{"-timeout=10m"}},
		{Name: "race", Packages: append(slices.Clone(products), "./uinit/..."), Without: []string{"internal/archtest"}, Except: elsewhere, Flags: []string{"-race", "-timeout=20m"}},
		{Name: "netns", Packages: append(slices.Clone(products), "./uinit/..."), Only: netns, Flags: []string{"-timeout=20m", "-p=2"}, Each: true},
		qemu,
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	flags := flag.NewFlagSet("runtests", flag.ContinueOnError)
	flags.SetOutput(errs)
	full := flags.Bool("full", false, "also run what takes very long")
	check := flags.Bool("check", false, "only check that a test is meant")
	dir := flags.String("log", filepath.Join("images", "out", "test"), "directory for logs and tables")
	if err := flags.Parse(args); err != nil {
		return err
	}
	words := flags.Args()
	if len(words) == 0 {
		return errors.New("which tier? unit, race, netns or qemu")
	}
	// Who names a long test wants it.
	all := tiers(*full || strings.Contains(strings.Join(words, " "), "TestFull"))
	i := slices.IndexFunc(all, func(t testrun.Tier) bool { return t.Name == words[0] })
	if i < 0 {
		return fmt.Errorf("there is no tier %s: say unit, race, netns or qemu", words[0])
	}
	request, err := testrun.Parse(".", words[1:])
	if err != nil {
		return err
	}
	chosen, err := testrun.Select(ctx, ".", all[i], request)
	if err != nil {
		return err
	}
	switch {
	case request.List:
		fmt.Fprintln(out, strings.Join(chosen.Tests, "\n"))
		return nil
	case *check:
		return nil
	}
	return runTier(ctx, all[i].Name, *dir, chosen, out, errs)
}

// runTier runs tests and shows what became of them.
func runTier(ctx context.Context, name, dir string, chosen testrun.Selection, out, errs io.Writer) error {
	log, tables, err := places(dir, name)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(out, "%s: tests: %d, packages: %d, output: %s\n", name, len(chosen.Tests), chosen.Packages, log.Name())
	begin := time.Now()
	report := testrun.NewReport(chosen, out, log)
	ran := testrun.Run(ctx, ".", chosen, []string{testtable.DirEnv + "=" + tables}, report, io.MultiWriter(errs, log))
	ran = errors.Join(ran, report.Summary())
	if err := testrun.Tables(out, tables, testtable.Suffix); err != nil {
		ran = errors.Join(ran, err)
	}
	fmt.Fprintf(out, "%s: %d passed, %d failed, %d skipped in %.0f s\n", name, report.Passed(), report.Failed(), report.Skipped(), time.Since(begin).Seconds())
	switch {
	case ran != nil:
		fmt.Fprintf(out, "the whole log is %s\n", log.Name())
	case report.Skipped() > 0 && os.Getenv("CI") != "":
		fmt.Fprintln(out, "in CI every test has to run")
		ran = testrun.ErrFailed
	}
	return ran
}

// places makes the log of a tier and its empty directory for tables.
func places(dir, name string) (*os.File, string, error) {
	tables, err := filepath.Abs(filepath.Join(dir, name+".tables"))
	if err != nil {
		return nil, "", err
	}
	if err := os.RemoveAll(tables); err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(tables, 0o755); err != nil {
		return nil, "", err
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	return log, tables, err
}
