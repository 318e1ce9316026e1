//go:build !node

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"viver.lan/internal/ask"
	"viver.lan/internal/exclude"
	"viver.lan/internal/imagesource"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/manifest"
	"viver.lan/internal/shell"
	"viver.lan/internal/sourcelist"
)

// finder finds what questions are about.
type finder struct {
	places func(ctx context.Context, work string) (list []sourcelist.Place, notes []string, err error)
	look   func(ctx context.Context, p sourcelist.Place, work string) (list []sourcelist.Place, notes []string, err error)
	sticks func(ctx context.Context) ([]sourcelist.Stick, error)
}

// questions become command lines: what is shown before they run and again at the end is what runs.
type questions struct {
	env  environment
	ask  *ask.Asker
	find finder

	source     sourcelist.Place
	passphrase string
	exclude    []string
	image      string
	medium     string           // an ISO file, "" for none
	stick      sourcelist.Stick // to write that to
	serve      bool
}

// askImage asks what to build, and builds it.
func askImage(ctx context.Context, env environment) error {
	find := finder{sourcelist.Places, sourcelist.PlacesOn, sourcelist.Sticks}
	if env.find != nil {
		find = *env.find
	}
	q := &questions{env: env, ask: ask.New(env.stdin, env.stderr), find: find}
	q.ask.Say(`No source was given, so here are five questions. Enter takes the answer in [brackets],
Ctrl-C ends. Nothing is made or changed before the last one.`)
	for _, step := range []func(context.Context) error{q.askSource, q.askExclude, q.askName, q.askMedium} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	q.ask.Say("\nThis will be done:")
	q.sayCommands()
	if q.stick.Path != "" {
		q.ask.Say("Everything on %s will be lost: %s.", q.stick.Path, q.stick.On)
	}
	yes, err := q.ask.Agree(ctx, "Go on?", q.stick.Path == "")
	if err != nil {
		return err
	}
	if !yes {
		q.ask.Say("Nothing was done.")
		return nil
	}
	for _, line := range q.commands() {
		q.ask.Say("\n$ viver %s", shellLine(line))
		root := newRoot(env)
		root.SetArgs(line)
		root.SetOut(env.stdout)
		root.SetErr(env.stderr)
		if err := root.ExecuteContext(ctx); err != nil {
			return err
		}
	}
	q.ask.Say("\nDone. The same again, without questions:")
	q.sayCommands()
	if q.serve {
		q.ask.Say("To boot machines from this computer, for as long as it runs:\n  sudo viver serve %s", quoted(q.image))
	}
	return nil
}

func (q *questions) sayCommands() {
	sudo := ""
	if os.Getenv("SUDO_USER") != "" {
		sudo = "sudo "
	}
	for _, line := range q.commands() {
		q.ask.Say("  %sviver %s", sudo, shellLine(line))
	}
}

// commands are the command lines, without the name of the program.
func (q *questions) commands() (lines [][]string) {
	build := []string{"image", "build", q.source.Source, "-o", q.image}
	if q.source.Root != "" {
		build = append(build, "--root", q.source.Root)
	}
	if q.passphrase != "" {
		build = append(build, "--passphrase-file", q.passphrase)
	}
	for _, pattern := range q.exclude {
		build = append(build, "--exclude", pattern)
	}
	lines = append(lines, build)
	if q.medium != "" {
		lines = append(lines, []string{"medium", "build", q.image, "-o", q.medium})
	}
	if q.stick.Path != "" {
		lines = append(lines, []string{"medium", "write", q.medium, q.stick.Path})
	}
	return lines
}

func shellLine(line []string) string {
	var list []string
	for _, word := range line {
		list = append(list, quoted(word))
	}
	return strings.Join(list, " ")
}

// plain are words that a shell leaves as they are.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quoted writes a word for a shell, as a person would.
func quoted(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return shell.Quote(word)
}

func (q *questions) askSource(ctx context.Context) error {
	if os.Geteuid() != 0 && q.env.find == nil {
		q.ask.Say("Only root can read this machine's own system and its disks: Ctrl-C and sudo viver image build")
		q.ask.Say("offers them. Without it there are trees and archives.")
		return q.askOther(ctx)
	}
	q.ask.Say("Looking at the disks of this machine ...")
	work, err := os.MkdirTemp("", "viver")
	if err != nil {
		return err
	}
	defer os.Remove(work)
	places, notes, err := q.find.places(ctx, work)
	if err != nil {
		return err
	}
	for {
		for _, note := range notes {
			q.ask.Say("%s", note)
		}
		var answers []string
		for _, p := range places {
			answers = append(answers, p.String())
		}
		n, err := q.ask.Choose(ctx, "Which Linux shall the machines run?", append(answers, "another: a directory, an archive or the disk of a virtual machine"))
		if err != nil {
			return err
		}
		if n == len(places) {
			return q.askOther(ctx)
		}
		q.source = places[n]
		if !q.source.Unseen {
			break
		}
		q.ask.Say("Looking at %s ...", q.source.Source)
		var found []sourcelist.Place
		if found, notes, err = q.find.look(ctx, q.source, work); err != nil {
			return err
		}
		if len(found) == 0 && len(notes) == 0 {
			notes = []string{q.source.Source + " has no installed Linux."}
		}
		if places = slices.Replace(places, n, n+1, found...); len(found) == 1 {
			q.source = found[0]
			q.ask.Say("It has %s", q.source)
			break
		}
	}
	if !q.source.Locked {
		return nil
	}
	q.passphrase, err = q.ask.Text(ctx, "A file with the passphrase", "", func(name string) error {
		_, err := os.Stat(name)
		return err
	})
	return err
}

func (q *questions) askOther(ctx context.Context) (err error) {
	q.source.Source, err = q.ask.Text(ctx, "Its path", "", func(name string) error {
		if name == "" {
			return errors.New("type the path of a directory, an archive, a disk or the file of one")
		}
		if strings.HasPrefix(name, "-") {
			return fmt.Errorf("%s would be an option of the command; write ./%[1]s", name)
		}
		_, err := os.Stat(name)
		return err
	})
	return err
}

// askExclude shows what is large. Of what has to be unpacked first nothing is known yet.
func (q *questions) askExclude(ctx context.Context) (err error) {
	var answers []string
	var large []sourcelist.Large
	if fi, err := os.Stat(q.source.Source); err == nil && !fi.Mode().IsRegular() {
		q.ask.Say("\nReading what is in %s ...", q.source.Source)
		var total int64
		if large, total, err = q.measure(ctx); err != nil {
			return err
		}
		q.ask.Say("It has %d MiB; what belongs to one machine only is left out already.", total>>20)
		for _, l := range large {
			answers = append(answers, l.String())
		}
	}
	question := "What else shall stay out? Everybody on the network can read what is in the image."
	chosen, others, err := q.ask.Several(ctx, question, "Numbers, or paths such as /srv/*.iso", answers)
	if err != nil {
		return err
	}
	for _, n := range chosen {
		q.exclude = append(q.exclude, exclude.Literal(large[n].Path))
	}
	q.exclude = append(q.exclude, others...)
	return nil
}

// measure returns which directories of the source are large, and how large all of it is.
func (q *questions) measure(ctx context.Context) (large []sourcelist.Large, total int64, err error) {
	work, err := os.MkdirTemp("", "viver")
	if err != nil {
		return nil, 0, err
	}
	defer os.Remove(work)
	passphrase, err := readPassphrase(q.passphrase)
	if err != nil {
		return nil, 0, err
	}
	source, err := imagesource.Open(ctx, q.source.Source, imagesource.Options{Root: q.source.Root, Passphrase: passphrase, Work: work})
	if err != nil {
		return nil, 0, err
	}
	defer source.Close()
	var tree *imagetree.Tree
	if tree, err = source.Scan(ctx, nil); err != nil {
		return nil, 0, err
	}
	defer tree.Close()
	large, total = sourcelist.LargeIn(tree)
	return large, total, nil
}

func (q *questions) askName(ctx context.Context) (err error) {
	q.ask.Say("")
	q.image, err = q.ask.Text(ctx, "Directory to make the image in", "lab", checkImageName)
	if err != nil {
		return err
	}
	if _, err := os.Stat(q.image); err == nil {
		q.ask.Say("%s is an image already: the new one takes its place when it is complete.", q.image)
	}
	return nil
}

func checkImageName(name string) error {
	if name == "" {
		return errors.New("the image needs a name")
	}
	if strings.HasPrefix(name, "-") {
		return fmt.Errorf("%s would be an option of the command; choose another name", name)
	}
	if fi, err := os.Stat(filepath.Dir(name)); err != nil || !fi.IsDir() {
		return fmt.Errorf("there is no directory %s", filepath.Dir(name))
	}
	if _, err := os.Lstat(name); err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(name, manifest.File)); err != nil {
		return fmt.Errorf("%s exists and is no image; choose another name", name)
	}
	return nil
}

func (q *questions) askMedium(ctx context.Context) error {
	answers := []string{fmt.Sprintf("a file for a CD or a stick: %s.iso", q.image)}
	list, err := q.find.sticks(ctx)
	if err != nil {
		q.ask.Say("%v", err)
	}
	for _, s := range list {
		answers = append(answers, fmt.Sprintf("a stick that is here: %s, %s (everything on it is lost)", s.Path, s.On))
	}
	nothing := len(answers)
	answers = append(answers, "nothing now, only the image")
	if canServe(q.env) {
		answers = append(answers, "this computer serves it")
	}
	n, err := q.ask.Choose(ctx, "What shall the first machine boot from?", answers)
	if err != nil {
		return err
	}
	if n < nothing {
		q.medium = q.image + ".iso"
	}
	if n > 0 && n < nothing {
		q.stick = list[n-1]
	}
	q.serve = n > nothing
	if _, err := os.Lstat(q.medium); err == nil {
		q.ask.Say("%s exists, and is replaced.", q.medium)
	}
	return nil
}

// canServe reports whether this viver boots machines itself.
func canServe(env environment) bool {
	cmd, _, err := newRoot(environment{stdout: io.Discard, stderr: io.Discard, executable: env.executable, configDir: env.configDir}).Find([]string{"serve"})
	return err == nil && cmd.Name() == "serve"
}
