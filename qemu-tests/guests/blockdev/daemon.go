package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"viver.lan/internal/blockdev"
	"viver.lan/internal/nbd"
)

// settings of a daemon, handed over as its second argument.
type settings struct {
	Identity    string
	Timeout     time.Duration
	Connections int
}

// answer of the daemon to one line of its standard input, one line of JSON.
type answer struct {
	Error string `json:"error,omitempty"`
	Again bool   `json:"again,omitempty"` // the first answer: it took the device over
	Most  int64  `json:"most,omitempty"`  // reads at once since the last "stats"
	Total int64  `json:"total,omitempty"` // reads since the daemon began
	Conns int64  `json:"conns,omitempty"` // connections served since the daemon began
}

// serve is the block daemon. It says when it is attached, obeys its standard
// input, and says why it ends when that is not by order.
func serve(arg string) error {
	var s settings
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return err
	}
	v, err := openVolume()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	b := newBackend(v)
	var conns connections
	ctx := context.Background()
	attaching, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	device, err := blockdev.Attach(attaching, blockdev.Config{
		Size: volumeSize, Identity: s.Identity, Timeout: s.Timeout, Connections: s.Connections, Log: log,
		Serve: func(ctx context.Context, conn net.Conn) error {
			defer conns.add(conn)()
			return nbd.Serve(ctx, conn, b, nbd.Options{Log: log})
		},
	})
	if err != nil {
		return send(answer{Error: err.Error()})
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := device.Run(ctx); err != nil {
			send(answer{Error: err.Error()})
		}
	})
	if err := send(answer{Again: device.Again()}); err != nil {
		return err
	}
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		a := answer{}
		switch order, value, _ := strings.Cut(orders.Text(), " "); order {
		case "delay":
			d, err := time.ParseDuration(value)
			if err != nil {
				a.Error = err.Error()
			}
			b.delay.Store(int64(d))
		case "stall":
			b.stall()
		case "resume":
			b.resume()
		case "break", "mend":
			b.broken.Store(order == "break")
		case "drop":
			conns.closeAll()
		case "stats":
			a = answer{Most: b.most.Swap(0), Total: b.total.Load(), Conns: conns.total.Load()}
		case "detach":
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			if err := device.Detach(ctx); err != nil {
				a.Error = err.Error()
			}
			cancel()
			ended.Wait()
		default:
			a.Error = fmt.Sprintf("unknown order %q", order)
		}
		if err := send(a); err != nil {
			return err
		}
	}
	return orders.Err()
}

func send(a answer) error { return json.NewEncoder(os.Stdout).Encode(a) }

// connections are those being served.
type connections struct {
	mu    sync.Mutex
	open  map[net.Conn]bool
	total atomic.Int64
}

func (c *connections) add(conn net.Conn) (remove func()) {
	c.total.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]bool{}
	}
	c.open[conn] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, conn)
	}
}

func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
}

// daemon is a block daemon as the tests see it.
type daemon struct {
	command *exec.Cmd
	orders  io.WriteCloser
	answers *json.Decoder
	again   bool
}

// startDaemon starts a daemon and waits until the device is attached.
func startDaemon(s settings) (*daemon, error) {
	arg, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	d := &daemon{command: exec.Command("/proc/self/exe", "serve", string(arg))}
	d.command.Stderr = os.Stderr
	if d.orders, err = d.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.answers = json.NewDecoder(out)
	if err := d.command.Start(); err != nil {
		return nil, err
	}
	a, err := d.answer()
	if err != nil {
		d.kill()
		return nil, fmt.Errorf("start the block daemon: %w", err)
	}
	d.again = a.Again
	return d, nil
}

// answer reads the next one.
func (d *daemon) answer() (answer, error) {
	var a answer
	if err := d.answers.Decode(&a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// order gives an order and returns the answer.
func (d *daemon) order(line string) (answer, error) {
	if _, err := fmt.Fprintln(d.orders, line); err != nil {
		return answer{}, fmt.Errorf("%s: %w", line, err)
	}
	a, err := d.answer()
	if err != nil {
		return a, fmt.Errorf("%s: %w", line, err)
	}
	return a, nil
}

// kill ends the daemon as kill -9 does.
func (d *daemon) kill() {
	d.command.Process.Kill()
	d.command.Wait()
	d.orders.Close()
}
