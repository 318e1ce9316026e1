package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// maxFetch bounds what a boot host can make us hold in memory: metainfo,
// manifest, settings, bundles and drivers, none of which comes near it.
const maxFetch = 64 << 20

// fetchStall is how long a boot host may send nothing.
const fetchStall = 15 * time.Second

// fetch gets one small file from the boot host by HTTP.
func fetch(ctx context.Context, host netip.AddrPort, name string) ([]byte, error) {
	return fetchURL(ctx, &url.URL{Scheme: "http", Host: host.String(), Path: "/" + name})
}

// fetchURL does so by its address. It follows redirects to other nodes.
func fetchURL(ctx context.Context, u *url.URL) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(fetchStall, func() { cancel(fmt.Errorf("nothing came for %s", fetchStall)) })
	defer stalled.Stop()
	data, err := get(ctx, u, func() { stalled.Reset(fetchStall) })
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	return data, nil
}

// get calls progress whenever something has come.
func get(ctx context.Context, u *url.URL, progress func()) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	progress()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("the boot host has no such file: %w", fs.ErrNotExist)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the boot host answered %s", resp.Status)
	}
	if resp.ContentLength > maxFetch {
		return nil, fmt.Errorf("larger than %d bytes", maxFetch)
	}
	// Grown once, so that a large file is not in memory twice.
	var data bytes.Buffer
	data.Grow(int(max(resp.ContentLength, 0)) + bytes.MinRead)
	if _, err := data.ReadFrom(io.LimitReader(&reporter{resp.Body, progress}, maxFetch+1)); err != nil {
		return nil, err
	}
	if data.Len() > maxFetch {
		return nil, fmt.Errorf("larger than %d bytes", maxFetch)
	}
	return data.Bytes(), nil
}

// reporter calls progress after each read.
type reporter struct {
	io.Reader
	progress func()
}

func (r *reporter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.progress()
	return n, err
}
