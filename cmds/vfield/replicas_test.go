package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/control"
)

// small starts nodes that cannot hold the whole image, each knowing all others
// and the first node.
func (r *room) small(cache string, nodes ...int) (started []*machine) {
	r.t.Helper()
	for _, i := range nodes {
		var others []int
		for _, k := range nodes {
			if k != i {
				others = append(others, k)
			}
		}
		started = append(started, r.start(i, append(r.know(0, others...), "--cache", cache)...))
	}
	return started
}

// all waits until a status of each of the machines is as it should be. No
// machine may use more than its budget at any time.
func (r *room) all(what string, machines []*machine, is func(s *control.Status) bool) {
	r.t.Helper()
	for _, m := range machines {
		until(r.t, fmt.Sprintf("node %d: %s", m.node.Index(), what), func() bool {
			s, err := m.status()
			if err != nil {
				return false
			}
			if s.Used > s.Budget {
				r.t.Errorf("node %d uses %d bytes, its budget is %d", m.node.Index(), s.Used, s.Budget)
			}
			return is(s)
		})
	}
}

// readAll lets every machine read the whole image at once.
func (r *room) readAll(machines []*machine) {
	r.t.Helper()
	var readers []*reader
	for k, m := range machines {
		readers = append(readers, m.read(int64(k)*int64(len(r.data))/int64(len(machines))))
	}
	for _, read := range readers {
		read.finish()
	}
}

// Eight nodes, none of which can hold the image, keep four copies of each
// piece. The first node leaves, then any three of them die at once: nothing is
// lost. What is left makes new copies, as many as there is room for, and the
// next that dies takes nothing with it either. More losses than copies are
// said in plain words; the first node brings everything back.
func TestNetnsAnyThreeDie(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 9, 100, 256)
	if r == nil {
		return
	}
	o := r.origin(0)
	nodes := r.small("12M", 1, 2, 3, 4, 5, 6, 7, 8)
	copies := func(n int) func(s *control.Status) bool {
		return func(s *control.Status) bool { return s.Independence.Independent && s.Independence.Replicas >= n }
	}
	nothingLost := func(s *control.Status) bool { return s.OutOfReach == 0 && s.Independence.Independent }
	r.all("four copies of each piece", append(nodes, o), copies(4))
	o.kill()
	for _, n := range []int{6, 3, 1} { // any three
		nodes[n].signal(syscall.SIGKILL)
	}
	for _, n := range []int{6, 3, 1} {
		<-nodes[n].done
		nodes = append(nodes[:n:n], nodes[n+1:]...)
	}
	r.all("three died, nothing is lost", nodes, nothingLost)
	r.readAll(nodes)
	r.all("two copies again", nodes, copies(2))
	nodes[2].kill()
	nodes = append(nodes[:2:2], nodes[3:]...)
	r.all("one more died, nothing is lost", nodes, nothingLost)
	r.all("two copies again", nodes, copies(2))
	r.readAll(nodes)

	// Three of the last four.
	for _, n := range nodes[1:] {
		n.kill()
	}
	last := nodes[:1]
	r.all("what is missing is said", last, func(s *control.Status) bool {
		return s.OutOfReach > 0 && s.Transfer.Have+s.OutOfReach == s.Transfer.Pieces && !s.Independence.Independent
	})
	o.run()
	r.readAll(last)
	r.all("nothing is missing", last, func(s *control.Status) bool { return s.OutOfReach == 0 })
}

// Three nodes have together less room than the image needs, and all of them
// read all of it twice at the same time. The first node has to stay, which is
// said in numbers; nobody takes more memory than its budget, and afterwards
// there is rest: nothing is fetched and thrown away for ever.
func TestNetnsBudgetExhausted(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 4, 200, 256)
	if r == nil {
		return
	}
	o := r.origin(0, "--cache", "1M")
	nodes := r.small("3M", 1, 2, 3)
	r.all("the shortfall is said", append(nodes, o), func(s *control.Status) bool {
		return !s.Independence.Independent && s.Independence.Short && s.Independence.Offered > 0
	})
	for range 2 {
		r.readAll(nodes)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &fs); err != nil {
		t.Fatal(err)
	}
	if used, budgets := int64(fs.Blocks-fs.Bfree)*fs.Bsize, int64(3*3+1)<<20; used > budgets+1<<20 {
		t.Errorf("pieces take %d bytes of memory, the budgets are %d", used, budgets)
	}
	received := func() (sum uint64) {
		for _, n := range nodes {
			s, err := n.status()
			if err != nil {
				t.Fatal(err)
			}
			sum += s.Transfer.FromOrigin + s.Transfer.FromPeers
		}
		return sum
	}
	before := uint64(1)
	until(t, "there is rest", func() bool {
		time.Sleep(3 * time.Second)
		now := received()
		same := now == before
		before = now
		return same
	})
}
