package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness/lan"
)

// VM is a machine that was switched on.
type VM struct {
	config  Config // with its defaults
	lab     *Lab
	started time.Time

	process *os.Process
	qmp     *qmp
	console *Console
	events  *eventLog
	agent   *agent
	ports   []*lan.Port
	stderr  *syncBuffer

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when one of these changes
	resets  int
	reason  string // of QEMU's shutdown event
	early   uint64 // frames sent before the kernel ran

	readers sync.WaitGroup
	done    chan struct{} // closed when QEMU ended and all was read
	exit    error         // this and the next are valid after done
	worked  time.Duration // of the host's processors
}

func agentAndEventPorts() []string { return append(eventPorts(), execproto.PortName) }

// Start switches a machine on. It runs until it switches itself off,
// PowerCut, or the end of the lab.
func (l *Lab) Start(ctx context.Context, c Config) (*VM, error) {
	c = c.withDefaults()
	vm, err := l.start(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	l.opts.Logf("%s: on (%s, %d MiB, %s)", c.Name, c.Firmware, c.Memory, l.accel)
	return vm, nil
}

func (l *Lab) start(ctx context.Context, c Config) (vm *VM, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	w := wiring{accel: l.accel, ports: map[string]string{}}
	if c.Firmware.IsUEFI() {
		w.vars = l.path(c.Name, "vars.fd")
		if _, err := os.Stat(w.vars); err != nil { // kept when a machine is switched on again
			_, vars := c.Firmware.ovmf()
			if err := copyFile(w.vars, vars); err != nil {
				return nil, err
			}
		}
	}
	var wires wires
	defer func() {
		if err != nil {
			wires.close()
		}
	}()
	vm = &VM{config: c, lab: l, stderr: &syncBuffer{}, changed: make(chan struct{}), done: make(chan struct{})}
	conn, chardev := wires.chardev("qmp")
	w.qmp, vm.qmp = chardev, newQMP(conn, vm.onQMP)
	conn, w.serial = wires.chardev("serial")
	if vm.console, err = newConsole(conn, l.path(c.Name, "console.log")); err != nil {
		return nil, err
	}
	onRecord := func(rec Record) {
		l.logStage(c.Name, rec)
		if l.opts.OnRecord != nil {
			l.opts.OnRecord(c.Name, rec)
		}
	}
	if vm.events, err = newEventLog(l.path(c.Name, "events.jsonl"), onRecord); err != nil {
		return nil, err
	}
	var eventConns []net.Conn
	for i, name := range agentAndEventPorts() {
		conn, w.ports[name] = wires.chardev(fmt.Sprintf("port%d", i))
		if name == execproto.PortName {
			vm.agent = newAgent(conn)
		} else {
			eventConns = append(eventConns, conn)
		}
	}
	var nicConns []net.Conn
	for i := range c.NICs {
		conn, fd := wires.add(fmt.Sprintf("nic%d", i))
		nicConns = append(nicConns, conn)
		w.netdevs = append(w.netdevs, fmt.Sprintf("stream,id=net%d,server=off,addr.type=fd,addr.str=%d", i, fd))
	}
	if wires.err != nil {
		return nil, wires.err
	}

	cmd := exec.Command(QEMU, c.args(w)...)
	cmd.Stdout, cmd.Stderr = vm.stderr, vm.stderr
	cmd.ExtraFiles = wires.theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := vm.launch(cmd, eventConns); err != nil {
		return nil, err
	}
	wires.closeTheirs()
	l.mu.Lock()
	l.vms = append(l.vms, vm)
	l.mu.Unlock()
	for i, n := range c.NICs {
		p, err := n.LAN.Plug(c.Name, nicConns[i], lan.PortOptions{BitsPerSecond: n.BitsPerSecond, Mangle: n.Mangle})
		if err != nil {
			vm.PowerCut()
			return nil, err
		}
		vm.ports = append(vm.ports, p)
	}
	startCtx, cancel := vm.While(ctx)
	defer cancel()
	if err := vm.qmp.start(startCtx); err != nil {
		vm.PowerCut()
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(vm.stderr.String()))
	}
	return vm, nil
}

// launch starts QEMU and the goroutines that belong to it.
func (vm *VM) launch(cmd *exec.Cmd, eventConns []net.Conn) error {
	vm.readers.Go(vm.qmp.run)
	vm.readers.Go(vm.console.run)
	vm.readers.Go(vm.agent.run)
	for _, conn := range eventConns {
		vm.readers.Go(func() { vm.events.read(conn) })
	}
	result := make(chan error, 1)
	vm.started = time.Now()
	go func() {
		// The death signal comes when the thread that started the process
		// ends, so that thread waits here.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		result <- err
		if err != nil {
			return
		}
		vm.exit = cmd.Wait()
		vm.worked = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		vm.readers.Wait()
		vm.events.end()
		vm.wake()
		close(vm.done)
	}()
	if err := <-result; err != nil {
		vm.events.end()
		return err
	}
	vm.process = cmd.Process
	return nil
}

func (l *Lab) path(vm, what string) string { return filepath.Join(l.dir, vm+"-"+what) }

// byHand is a command line for a terminal: the console on it, events in
// files, and a multicast network shared by all machines started so.
func (vm *VM) byHand() string {
	l, c := vm.lab, vm.config
	w := wiring{accel: l.accel, vars: l.path(c.Name, "vars.fd"), ports: map[string]string{},
		qmp: "null,id=qmp", serial: "stdio,id=serial,signal=off"}
	for i, name := range agentAndEventPorts() {
		w.ports[name] = fmt.Sprintf("file,id=port%d,path=%s", i, escape(l.path(c.Name, "by-hand-"+name+".jsonl")))
	}
	for i := range c.NICs {
		w.netdevs = append(w.netdevs, fmt.Sprintf("socket,id=net%d,mcast=230.0.0.1:12345", i))
	}
	words := []string{QEMU}
	for _, arg := range c.args(w) {
		if arg == "" || strings.ContainsAny(arg, " \t'\"$&;|<>()*?\\") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

func (vm *VM) onQMP(name string, data json.RawMessage) {
	switch name {
	case "RESET":
		// What the guest said before belongs to a boot that is over.
		vm.events.reset()
		vm.agent.lost()
		vm.mu.Lock()
		vm.resets++
		vm.mu.Unlock()
		vm.wake()
	case "SHUTDOWN":
		var d struct {
			Reason string `json:"reason"`
		}
		_ = json.Unmarshal(data, &d)
		vm.mu.Lock()
		vm.reason = d.Reason
		vm.mu.Unlock()
		vm.wake()
	}
}

func (vm *VM) wake() {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	close(vm.changed)
	vm.changed = make(chan struct{})
}

// wires are socket pairs between this process and QEMU. The first error stays
// in err and the rest does nothing.
type wires struct {
	theirs []*os.File
	ours   []net.Conn
	err    error
}

// add makes a pair and returns our end and the number that their end will
// have in QEMU.
func (w *wires) add(name string) (net.Conn, int) {
	if w.err != nil {
		return nil, 0
	}
	theirs, ours, err := lan.Pair(name)
	if err != nil {
		w.err = err
		return nil, 0
	}
	w.theirs, w.ours = append(w.theirs, theirs), append(w.ours, ours)
	return ours, 2 + len(w.theirs) // after stdin, stdout and stderr
}

func (w *wires) chardev(id string) (net.Conn, string) {
	conn, fd := w.add(id)
	return conn, fmt.Sprintf("socket,id=%s,fd=%d", id, fd)
}

func (w *wires) closeTheirs() {
	for _, f := range w.theirs {
		f.Close()
	}
	w.theirs = nil
}

func (w *wires) close() {
	w.closeTheirs()
	for _, c := range w.ours {
		c.Close()
	}
}

// syncBuffer keeps the beginning of what QEMU complains about.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

var _ io.Writer = (*syncBuffer)(nil)

// Write implements io.Writer.
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() < 64<<10 {
		b.buf.Write(p)
	}
	return len(p), nil
}

// String returns what was kept.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
