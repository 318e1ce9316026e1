package sim

import "time"

// event is something that happens to a machine at a time.
type event struct {
	at   time.Duration
	seq  uint64 // events of the same time happen in the order they were made
	kind kind
	node int32
	a, b int32
	// Which life of the node and of the sender it belongs to.
	life, from int32
}

func (e *event) before(f *event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

// queue is a heap of events, the earliest first. Four children to a parent
// keep it flat, and events are values, so that nothing is allocated for one.
type queue struct {
	heap []event
	made uint64
}

func (q *queue) push(e event) {
	q.made++
	e.seq = q.made
	q.heap = append(q.heap, e)
	h, i := q.heap, len(q.heap)-1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
}

func (q *queue) pop() (event, bool) {
	if len(q.heap) == 0 {
		return event{}, false
	}
	h := q.heap
	first, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	q.heap = h
	if len(h) == 0 {
		return first, true
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= len(h) {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, len(h)); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return first, true
}
