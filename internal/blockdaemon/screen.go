package blockdaemon

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// screen is where a volume that stands alone speaks to whoever started it: log
// lines and, on a terminal, one line below them that is written again and
// again.
type screen struct {
	columns func() int // of the terminal; nil elsewhere

	mu   sync.Mutex
	w    io.Writer
	line string
}

func newScreen(f *os.File) *screen {
	s := &screen{w: f}
	if term.IsTerminal(int(f.Fd())) {
		s.columns = func() int {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
				return width
			}
			return 80
		}
	}
	return s
}

const clearLine = "\r\x1b[K"

// Write implements io.Writer for log lines.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := fmt.Fprintf(s.w, "%s%s%s", clearLine, p, s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show replaces the line at the bottom; "" takes it away. Without a terminal
// there is none.
func (s *screen) show(line string) {
	if s.columns == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	line = line[:min(len(line), max(s.columns()-1, 0))]
	if line != s.line {
		s.line = line
		fmt.Fprint(s.w, clearLine, line) // a terminal that is gone is no reason to stop
	}
}
