package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/operator"
)

// Client talks to the block daemon of this machine.
type Client struct {
	path       string
	http       http.Client
	maxSilence time.Duration // of a daemon that is followed
}

// NewClient returns a client of the daemon that listens on path.
func NewClient(path string) *Client {
	c := &Client{path: path, maxSilence: maxSilence}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	return c
}

// ErrVersion means that something answers, and does not know the question: a daemon of
// another version.
var ErrVersion = errors.New("the node has another version than this program")

// Status asks the daemon how it is now. Who wants to know again uses Watch.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	resp, err := c.get(ctx, "status", "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	s := new(Status)
	if err := json.NewDecoder(resp.Body).Decode(s); err != nil {
		return nil, fmt.Errorf("ask %s for its status: %w", c.path, err)
	}
	return s, nil
}

// PutOverride has the daemon take a signed override and tell it to all nodes.
func (c *Client) PutOverride(ctx context.Context, o operator.Override) error {
	return c.post(ctx, "overrides", o)
}

// AnnounceOff has the daemon tell the members that this machine is about to be switched
// off.
func (c *Client) AnnounceOff(ctx context.Context) error { return c.postBytes(ctx, "off", nil) }

// post sends the daemon something as JSON.
func (c *Client) post(ctx context.Context, name string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("tell %s: %w", c.path, err)
	}
	return c.postBytes(ctx, name, body)
}

// postBytes sends something to the daemon.
func (c *Client) postBytes(ctx context.Context, name string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address(name), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("tell %s: %w", c.path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("tell %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusNotFound:
		return fmt.Errorf("tell %s: %w", c.path, ErrVersion)
	}
	why, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // as far as it goes
	return fmt.Errorf("the node does not take it: %s", bytes.TrimSpace(why))
}

// BeginNetwork has the daemon's network named, if nobody has named it.
func (c *Client) BeginNetwork(ctx context.Context) error { return c.postBytes(ctx, "network", nil) }

// AddLayer has the daemon take a live layer, to which the override points that is put
// next.
func (c *Client) AddLayer(ctx context.Context, layer []byte) error {
	return c.postBytes(ctx, "live", layer)
}

// Layer returns a live layer of the node's, or one that it gets from another node.
func (c *Client) Layer(ctx context.Context, d livelayer.Digest) ([]byte, error) {
	resp, err := c.get(ctx, "live/"+d.String(), "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	layer, err := io.ReadAll(io.LimitReader(resp.Body, livelayer.MaxSize+1))
	if err == nil && livelayer.PointTo(layer).Digest != d {
		err = errors.New("it sent other bytes")
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for a live layer: %w", c.path, err)
	}
	return layer, nil
}

// AddPublication has the daemon take a publication, to which the override points that is
// put next.
func (c *Client) AddPublication(ctx context.Context, publication []byte) error {
	return c.postBytes(ctx, "publication", publication)
}

// Publication returns the publication in use; where nothing was published, one in which
// the image that the node runs comes after itself.
func (c *Client) Publication(ctx context.Context) ([]byte, error) {
	resp, err := c.get(ctx, "publication", "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	publication, err := io.ReadAll(io.LimitReader(resp.Body, livelayer.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("ask %s for the publication: %w", c.path, err)
	}
	return publication, nil
}

func address(name string) string {
	u := url.URL{Scheme: "http", Host: "vfield", Path: "/" + name}
	return u.String()
}

// readRange returns size bytes of a payload file from offset off. The daemon
// fetches what it does not hold; the caller closes the result. The error is
// os.ErrNotExist for a file that the image does not have.
func (c *Client) readRange(ctx context.Context, name string, off, size int64) (io.ReadCloser, error) {
	resp, err := c.get(ctx, "files/"+name, fmt.Sprintf("bytes=%d-%d", off, off+size-1))
	if errors.Is(err, ErrVersion) {
		return nil, fmt.Errorf("ask %s for %s: %w", c.path, name, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) get(ctx context.Context, name, byteRange string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address(name), nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", c.path, name, err)
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", c.path, name, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		return resp, nil
	case http.StatusNotFound:
		err = ErrVersion
	default:
		err = fmt.Errorf("it answered %s", resp.Status)
	}
	_ = resp.Body.Close() // the answer is no use
	return nil, fmt.Errorf("ask %s for %s: %w", c.path, name, err)
}
