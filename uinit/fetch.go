package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
)

// maxFetch bounds what a boot host can make us hold in memory: metainfo,
// manifest, settings and bundles, none of which comes near it.
const maxFetch = 64 << 20

// fetch gets one small file from the boot host by HTTP.
func fetch(ctx context.Context, host netip.AddrPort, name string) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: host.String(), Path: "/" + name}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", &u, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", &u, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("fetch %s: the boot host has no such file: %w", &u, fs.ErrNotExist)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch %s: the boot host answered %s", &u, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch+1))
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", &u, err)
	}
	if len(data) > maxFetch {
		return nil, fmt.Errorf("fetch %s: larger than %d bytes", &u, maxFetch)
	}
	return data, nil
}
