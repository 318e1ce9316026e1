package boothost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
)

// iPXE knows which network card it boots from, so it asks for the drivers of that card
// only (package nics). GRUB does not. It gets those of all cards from which a machine
// can start by UEFI, with the initramfs as one file: it opens all that it loads before it
// reads the first, and over TFTP the others would time out meanwhile.

// wholeName is the initramfs with the drivers of all network cards behind it. Those of
// cards without UEFI are not in uefiName, but over TFTP, which is the last resort.
const (
	wholeName = "initramfs-whole.img"
	uefiName  = "initramfs-uefi.img"
)

// What iPXE says of its card in a query; see nics.FromIPXE. An iPXE that has no such
// setting leaves the value empty.
const (
	cardKey   = "card"
	configKey = "pci"
	cardQuery = cardKey + "=${netX/busid:hexraw}&" + configKey + "=${pci/${netX/busloc}.0.4:hexraw}&"
)

// forCard narrows the drivers of network cards to those of the card in a query. When it
// cannot, it returns the whole file, and why.
func forCard(ctx context.Context, all resource, query url.Values) (resource, error) {
	card, ok := nics.FromIPXE(query.Get(cardKey), query.Get(configKey))
	if !ok {
		return all, errors.New("the query names no card on PCI")
	}
	return cut(ctx, all, card.String(), func(t *nics.Table) ([]nics.Span, error) { return t.Spans(card, all.size) })
}

// forUEFI returns the initramfs with the drivers of network cards from which machines start
// by UEFI. When it cannot, it returns all, and why.
func (c *catalog) forUEFI(ctx context.Context, all resource) (resource, error) {
	cards := c.entries[c.imagePath(manifest.NICs)]
	some, err := cut(ctx, cards, "uefi", func(t *nics.Table) ([]nics.Span, error) { return t.UEFI(cards.size) })
	if err != nil {
		return all, err
	}
	both := joined(c.entries[c.imagePath(manifest.Initramfs)], some)
	both.name = all.name
	return both, nil
}

// cut narrows the drivers of network cards to the parts that choose returns, for which
// name stands. When it cannot, it returns the whole file, and why.
func cut(ctx context.Context, all resource, name string, choose func(*nics.Table) ([]nics.Span, error)) (resource, error) {
	file, err := all.open(ctx)
	if err != nil {
		return all, err
	}
	defer file.Close()
	table, err := nics.Read(file)
	if err != nil {
		return all, err
	}
	spans, err := choose(table)
	if err != nil {
		return all, err
	}
	some := all
	some.size = 0
	for _, s := range spans {
		some.size += s.Length
	}
	if all.etag != "" {
		some.etag = fmt.Sprintf("%q", strings.Trim(all.etag, `"`)+"-"+name)
	}
	some.open = func(ctx context.Context) (io.ReadSeekCloser, error) {
		file, err := all.open(ctx)
		if err != nil {
			return nil, err
		}
		p := &parts{files: []io.ReadSeekCloser{file}}
		for _, s := range spans {
			p.parts = append(p.parts, part{file, s})
		}
		return p, nil
	}
	return some, nil
}

// joined is two files as one.
func joined(first, second resource) resource {
	both := first
	both.size = first.size + second.size
	both.etag = fmt.Sprintf("%q", strings.Trim(first.etag, `"`)+"-"+strings.Trim(second.etag, `"`))
	both.open = func(ctx context.Context) (io.ReadSeekCloser, error) {
		p := &parts{}
		for _, r := range []resource{first, second} {
			file, err := r.open(ctx)
			if err != nil {
				return nil, errors.Join(err, p.Close())
			}
			p.files = append(p.files, file)
			p.parts = append(p.parts, part{file, nics.Span{Length: r.size}})
		}
		return p, nil
	}
	return both
}

// parts reads parts of files as one file.
type parts struct {
	files []io.ReadSeekCloser
	parts []part
	at    int64
}

type part struct {
	file io.ReadSeeker
	nics.Span
}

// Read implements io.Reader.
func (p *parts) Read(b []byte) (int, error) {
	in := p.at // the place in a part
	for _, part := range p.parts {
		if in >= part.Length {
			in -= part.Length
			continue
		}
		if _, err := part.file.Seek(part.Offset+in, io.SeekStart); err != nil {
			return 0, err
		}
		n, err := part.file.Read(b[:min(int64(len(b)), part.Length-in)])
		p.at += int64(n)
		if err == io.EOF {
			if err = nil; n == 0 {
				err = io.ErrUnexpectedEOF // the file is shorter than its manifest says
			}
		}
		return n, err
	}
	return 0, io.EOF
}

// Seek implements io.Seeker.
func (p *parts) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.at
	case io.SeekEnd:
		for _, part := range p.parts {
			offset += part.Length
		}
	}
	if offset < 0 {
		return 0, errors.New("seek to before the beginning")
	}
	p.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (p *parts) Close() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
