package bench

import (
	"fmt"
	"time"

	"viver.lan/internal/sleep"
)

// watch shows on a terminal how far a run is, until the function it returns
// is called.
func (r *run) watch(begin time.Time) (stop func()) {
	if !r.options.Terminal {
		return func() {}
	}
	end := sleep.Every(500*time.Millisecond, func() {
		fmt.Fprint(r.options.Print, "\r\033[K", r.progressLine(time.Since(begin)))
	})
	return func() {
		end()
		fmt.Fprint(r.options.Print, "\r\033[K") // the row's line comes here
	}
}

func (r *run) progressLine(took time.Duration) string {
	var sum, least int64
	for i := 1; i < len(r.got); i++ {
		n := r.got[i].Load()
		sum += n
		if i == 1 || n < least {
			least = n
		}
	}
	nodes := int64(len(r.got) - 1)
	return fmt.Sprintf("%-28s %4.0f s  %3d %% (slowest %d %%)  %.1f MB/s each", r.spec.name(), took.Seconds(),
		100*sum/nodes/r.spec.size, 100*least/r.spec.size, float64(sum)/float64(nodes)/took.Seconds()/1e6)
}
