package testrun

import "io"

// log writes what packages print that run at the same time: one at once is
// written as it comes, the others when their turn comes.
type log struct {
	out     io.Writer
	now     string // the package whose lines are written as they come
	waiting map[string][]string
	order   []string // of those that wait
	err     error    // the first
}

func (l *log) put(line string) {
	if _, err := io.WriteString(l.out, line); err != nil && l.err == nil {
		l.err = err
	}
}

// write takes a line of a package, or of none ("").
func (l *log) write(pkg, line string) {
	if pkg == "" || pkg == l.now {
		l.put(line)
		return
	}
	if l.now == "" {
		l.now = pkg
		l.put(line)
		return
	}
	if l.waiting[pkg] == nil {
		l.order = append(l.order, pkg)
	}
	l.waiting[pkg] = append(l.waiting[pkg], line)
}

// end is when a package prints no more. Of those that wait, the first one is next.
func (l *log) end(pkg string) {
	if pkg != l.now {
		l.release(pkg)
		return
	}
	l.now = ""
	if len(l.order) > 0 {
		l.now = l.order[0]
		l.release(l.now)
	}
}

// release writes what has waited.
func (l *log) release(pkg string) {
	for _, line := range l.waiting[pkg] {
		l.put(line)
	}
	delete(l.waiting, pkg)
	for i, p := range l.order {
		if p == pkg {
			l.order = append(l.order[:i], l.order[i+1:]...)
			return
		}
	}
}

func (l *log) flush() {
	for len(l.order) > 0 {
		l.release(l.order[0])
	}
}
