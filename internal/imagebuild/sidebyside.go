package imagebuild

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
)

// showFunc is told how far a task has come: Config.Progress.
type showFunc func(name string, done, total int64)

// task returns what shows one task.
func (f showFunc) task(name string) func(done, total int64) {
	return func(done, total int64) { f(name, done, total) }
}

// task is a part of the work that needs nothing of those beside it.
type task func(context.Context, showFunc) error

// sideBySide runs tasks at once and returns when all have ended, with the first error,
// which ends the others. Of what they tell it shows what the first of them in the list
// tells that has not ended, from the goroutine of the caller.
func sideBySide(ctx context.Context, show showFunc, tasks ...task) error {
	type report struct {
		of          int
		ended       bool
		name        string
		done, total int64
	}
	reports := make(chan report)
	g, ctx := errgroup.WithContext(ctx)
	for i, do := range tasks {
		g.Go(func() error {
			defer func() { reports <- report{of: i, ended: true} }()
			return do(ctx, func(name string, done, total int64) { reports <- report{of: i, name: name, done: done, total: total} })
		})
	}
	ended := make([]bool, len(tasks))
	for slices.Contains(ended, false) {
		switch r := <-reports; {
		case r.ended:
			ended[r.of] = true
		case r.of == slices.Index(ended, false):
			show(r.name, r.done, r.total)
		}
	}
	return g.Wait()
}
