package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/shell"
)

// printer shows what happens while a command runs on many machines.
type printer interface {
	shell.Observer
	// failed is the first error of a write.
	failed() error
}

func newPrinter(env environment, form string, group bool) (printer, error) {
	out := &sticky{w: env.stdout}
	base := linePrinter{out: out, errs: env.stderr}
	pieces := outputs{}
	switch {
	case form == "json":
		return &jsonPrinter{linePrinter: base, outputs: pieces}, nil
	case form != "text":
		return nil, usageError{fmt.Errorf("output form %q: want text or json", form)}
	case group:
		return &groupPrinter{linePrinter: base, outputs: pieces}, nil
	}
	return &base, nil
}

// sticky remembers the first error of a writer: a full disk must not look like success.
type sticky struct {
	w   io.Writer
	err error
}

func (s *sticky) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if s.err == nil {
		s.err = err
	}
	return n, err
}

// linePrinter shows each line as it comes, the machine's name in front.
type linePrinter struct {
	out  *sticky
	errs io.Writer
}

func (p *linePrinter) failed() error { return p.out.err }

func (p *linePrinter) Line(m control.Member, stderr bool, line []byte) {
	var w io.Writer = p.out
	if stderr {
		w = p.errs
	}
	fmt.Fprintf(w, "%s: %s\n", shell.Label(m), line)
}

func (p *linePrinter) Dead(m control.Member) {
	fmt.Fprintf(p.errs, "viver: no other node has an answer from %s any more; its connection is given up after 15 s of silence\n", shell.Label(m))
}

func (p *linePrinter) Ended(shell.Result) {} // the summary has it

// maxOutput is how many bytes of each output of a machine are remembered, where that is
// shown in one piece.
const maxOutput = 1 << 20

// saved is what a machine has printed.
type saved struct {
	out, errs bytes.Buffer
	cut       int // bytes that there was no room for
}

func (s *saved) add(b *bytes.Buffer, line []byte) {
	if b.Len()+len(line) >= maxOutput {
		s.cut += len(line) + 1
		return
	}
	b.Write(line)
	b.WriteByte('\n')
}

// outputs are those of the machines on which the command runs.
type outputs map[identity.ID]*saved

func (o outputs) of(m control.Member) *saved {
	if o[m.ID] == nil {
		o[m.ID] = new(saved)
	}
	return o[m.ID]
}

// groupPrinter shows what a machine has printed in one piece, both outputs as they came.
type groupPrinter struct {
	linePrinter
	outputs
}

func (p *groupPrinter) Line(m control.Member, _ bool, line []byte) {
	s := p.of(m)
	s.add(&s.out, line)
}

func (p *groupPrinter) Ended(r shell.Result) {
	s := p.of(r.Member)
	fmt.Fprintf(p.out, "== %s: %s\n", shell.Label(r.Member), sentence(r))
	s.out.WriteTo(p.out)
	if s.cut > 0 {
		fmt.Fprintf(p.out, "== %d bytes more, which are shown without --group\n", s.cut)
	}
	delete(p.outputs, r.Member.ID)
}

// jsonPrinter writes a line of JSON for each machine, when the command has ended there.
type jsonPrinter struct {
	linePrinter
	outputs
}

// machineResult is such a line.
type machineResult struct {
	Hostname string        `json:"hostname"`
	MAC      ether.MAC     `json:"mac"`
	Address  netip.Addr    `json:"address"`
	ID       identity.ID   `json:"id"`
	Outcome  shell.Outcome `json:"outcome"`
	Code     *int          `json:"exit,omitempty"` // when it ended by itself
	Reason   string        `json:"reason,omitempty"`
	Seconds  float64       `json:"seconds"`
	Stdout   string        `json:"stdout"`
	Stderr   string        `json:"stderr"`
	Cut      int           `json:"cut,omitempty"` // bytes of both that are left out
}

func (p *jsonPrinter) Line(m control.Member, stderr bool, line []byte) {
	s := p.of(m)
	if stderr {
		s.add(&s.errs, line)
	} else {
		s.add(&s.out, line)
	}
}

func (p *jsonPrinter) Ended(r shell.Result) {
	s := p.of(r.Member)
	line := machineResult{Hostname: r.Member.Hostname, MAC: r.Member.MAC, Address: r.Member.Address, ID: r.Member.ID,
		Outcome: r.Outcome, Reason: r.Reason, Seconds: r.Took.Seconds(), Stdout: s.out.String(), Stderr: s.errs.String(), Cut: s.cut}
	if r.Outcome == shell.Ended {
		line.Code = &r.Code
	}
	_ = json.NewEncoder(p.out).Encode(line) // the writer remembers it
	delete(p.outputs, r.Member.ID)
}
