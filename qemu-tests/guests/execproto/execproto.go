// Package execproto is the language between a test on the host and guestexec
// inside a guest.
//
// It travels over the virtio-serial port named PortName, one JSON object per
// line in each direction; empty lines mean nothing. The host sends Requests,
// guestexec sends Responses in whatever order they finish, and a Hello each
// time it notices that a host is listening. A host that reconnects quickly may
// miss that Hello and asks with the command "@hello". It is not a shell: argv
// is executed as it stands, and names beginning with "@" are commands that
// guestexec itself carries out, so that a guest without tools can be tested too.
//
// The invariant: every Request that arrives whole gets exactly one Response
// with its ID, unless the guest or the connection dies first.
package execproto

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// PortName is the name of the virtio-serial port, as given to QEMU with
// -device virtserialport,name=… and found in /sys/class/virtio-ports/*/name.
const PortName = "viver.agent"

const (
	// MaxLine bounds one message in bytes, its newline included.
	MaxLine = 8 << 20
	// MaxOutput bounds each of stdout and stderr of one Response in bytes;
	// what a command writes beyond it is dropped and Truncated is set.
	MaxOutput = 1 << 20
	// DefaultTimeout is the deadline of a Request that names none.
	DefaultTimeout = 30 * time.Second
)

// Commands that the agent carries out itself. "exit 1 and a sentence on
// stderr" is how each of them fails.
const (
	// CmdHello: stdout is the Hello as JSON.
	CmdHello = "@hello"
	// CmdSHA256 PATH [SIZE]: stdout is the hexadecimal SHA-256 of the file or
	// block device, or of its first SIZE bytes, read from the device itself
	// and not from the page cache.
	CmdSHA256 = "@sha256"
	// CmdRead PATH [OFFSET LENGTH]: stdout is the file's content.
	CmdRead = "@read"
	// CmdWrite PATH [MODE]: stdin becomes the file, which is synced. MODE is
	// octal, 644 if not given.
	CmdWrite = "@write"
	// CmdList PATH: stdout is one Entry as JSON per line.
	CmdList = "@ls"
	// CmdProcesses: stdout is one Process as JSON per line.
	CmdProcesses = "@ps"
	// CmdKill SIGNAL PID…: SIGNAL is a number or a name such as KILL.
	CmdKill = "@kill"
	// CmdInterfaces: stdout is one Interface as JSON per line.
	CmdInterfaces = "@interfaces"
	// CmdGet URL: stdout is the body of the HTTP answer, the exit code is 0
	// for status 200 and 1 for any other, stderr is the status line.
	CmdGet = "@get"
	// CmdDropCaches: sync and forget the page cache, dentries and inodes.
	CmdDropCaches = "@drop-caches"
)

// Bytes are the bytes of a stream. In JSON they are a string when they are
// valid UTF-8, {"base64":"…"} when not.
type Bytes []byte

type wrapped struct {
	Base64 string `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (b Bytes) MarshalJSON() ([]byte, error) {
	if utf8.Valid(b) {
		return json.Marshal(string(b))
	}
	return json.Marshal(wrapped{base64.StdEncoding.EncodeToString(b)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err == nil {
		*b = []byte(s)
		return nil
	}
	var w wrapped
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(w.Base64)
	if err != nil {
		return err
	}
	*b = raw
	return nil
}

// Request asks the agent to run one command. Requests run concurrently.
type Request struct {
	// ID is chosen by the host and unique among the requests in flight.
	ID   uint64   `json:"id"`
	Argv []string `json:"argv"`
	// Stdin is the whole standard input.
	Stdin Bytes `json:"stdin,omitempty"`
	// Timeout in seconds; 0 means DefaultTimeout. When it passes, the
	// command's process group is killed.
	Timeout float64 `json:"timeout,omitempty"`
}

// Deadline returns the request's time limit.
func (r Request) Deadline() time.Duration {
	if r.Timeout <= 0 {
		return DefaultTimeout
	}
	return time.Duration(r.Timeout * float64(time.Second))
}

// Response is the end of one request.
type Response struct {
	ID uint64 `json:"id"`
	// Exit is the exit code; 128+n for death by signal n; -1 with Error set
	// when the command could not be started or ran out of time.
	Exit      int    `json:"exit"`
	Stdout    Bytes  `json:"stdout"`
	Stderr    Bytes  `json:"stderr"`
	Truncated bool   `json:"truncated,omitempty"`
	Error     string `json:"error,omitempty"`
}

// Hello says that the agent listens, and where.
type Hello struct {
	Ready    bool   `json:"ready"` // always true
	Hostname string `json:"hostname"`
	// Init is what PID 1 is, e.g. "systemd", "init" or "tiny-init": the
	// content of /proc/1/comm.
	Init string `json:"init"`
	// BootID changes with every boot (/proc/sys/kernel/random/boot_id).
	BootID string `json:"boot_id"`
	// Uptime in seconds since the kernel started.
	Uptime float64 `json:"uptime"`
}

// Entry is a line of CmdList.
type Entry struct {
	Name string `json:"name"`
	Mode string `json:"mode"` // as fs.FileMode prints it
	Size int64  `json:"size"`
	Link string `json:"link,omitempty"` // target of a symbolic link
}

// Process is a line of CmdProcesses.
type Process struct {
	PID  int      `json:"pid"`
	PPID int      `json:"ppid"`
	Comm string   `json:"comm"`
	Argv []string `json:"argv"` // empty for kernel threads
}

// Interface is a line of CmdInterfaces.
type Interface struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac"`
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses"` // in CIDR notation
}

// Encode returns a message as its line, newline included.
func Encode(message any) ([]byte, error) {
	line, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if len(line) >= MaxLine {
		return nil, fmt.Errorf("message of %d bytes: the limit is %d", len(line), MaxLine)
	}
	return append(line, '\n'), nil
}

// DecodeReply reads a line from the agent: exactly one of hello and response
// is set, or both are nil for an empty line.
func DecodeReply(line []byte) (hello *Hello, response *Response, err error) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return nil, nil, nil
	}
	var kind struct {
		Ready bool    `json:"ready"`
		ID    *uint64 `json:"id"`
	}
	if err := json.Unmarshal(line, &kind); err != nil {
		return nil, nil, fmt.Errorf("reply from the agent: %w", err)
	}
	switch {
	case kind.Ready:
		hello = new(Hello)
		err = json.Unmarshal(line, hello)
	case kind.ID != nil:
		response = new(Response)
		err = json.Unmarshal(line, response)
	default:
		err = errors.New("neither ready nor an id in it")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reply from the agent: %w", err)
	}
	return hello, response, nil
}
