// Package livelayer is the encoding of a live layer: the runes, files and settings that
// the owner has added to a network since it was booted, as one file.
//
// Its Pointer travels in an override (package operator), so who may change it, for which
// network, and which of two is newer is decided there; package livestore brings the file
// to each node. It does not read runes: they are an archive for package runes. The
// invariant: bytes that a Pointer accepts are those that its owner signed, and none are
// decoded before.
package livelayer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Key is that of the override whose value is the Pointer to the layer in use.
const Key = "live"

// Bounds of a layer. Each node keeps it in memory, and some of those before it.
const (
	MaxSize    = 8 << 20 // bytes
	MaxChanges = 8       // that History has
	maxOff     = 256
	maxText    = 200 // bytes of a change's description
	// As many settings as a network's viver.toml may have (package config).
	maxSettings = 256
	maxValue    = 4096 // bytes
)

// Digest is the SHA-256 of a layer: its name.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}

// ParseDigest reads what String returns.
func ParseDigest(s string) (d Digest, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != s {
		return d, fmt.Errorf("%q is no digest of a live layer: want %d digits 0-9 a-f", clip(s), 2*len(d))
	}
	return Digest(b), nil
}

// Mark is the beginning of a Digest, by which members say in few bytes what they have.
// The zero value means none.
type Mark [8]byte

// Mark returns the digest's mark.
func (d Digest) Mark() Mark { return Mark(d[:]) }

func (m Mark) String() string {
	if m == (Mark{}) {
		return ""
	}
	return hex.EncodeToString(m[:])
}

// Pointer names a layer. The zero value names none.
type Pointer struct {
	Digest Digest
	Size   int64 // bytes
}

// PointTo returns the pointer to a layer.
func PointTo(layer []byte) Pointer {
	return Pointer{Digest: sha256.Sum256(layer), Size: int64(len(layer))}
}

// String is the value of the override.
func (p Pointer) String() string {
	if p == (Pointer{}) {
		return ""
	}
	return p.Digest.String() + "/" + strconv.FormatInt(p.Size, 10)
}

// ParsePointer reads what String returns.
func ParsePointer(s string) (p Pointer, err error) {
	if s == "" {
		return p, nil
	}
	digest, size, _ := strings.Cut(s, "/")
	if p.Digest, err = ParseDigest(digest); err != nil {
		return Pointer{}, err
	}
	p.Size, err = strconv.ParseInt(size, 10, 64)
	if err != nil || p.Size < 1 || p.Size > MaxSize || p.String() != s {
		return Pointer{}, fmt.Errorf("a live layer of %q bytes: want 1 to %d", clip(size), MaxSize)
	}
	return p, nil
}

// Check says whether these bytes are the layer.
func (p Pointer) Check(layer []byte) error {
	if got := PointTo(layer); got != p {
		return fmt.Errorf("%d bytes with the digest %s, want %d with %s", got.Size, got.Digest, p.Size, p.Digest)
	}
	return nil
}

// Layer is what a live layer holds.
type Layer struct {
	// Off are names of runes that are not used, though the image or the medium has them.
	Off []string
	// Settings are those of runes, by rune and key. Each takes the place of viver.toml's.
	Settings map[string]map[string]string
	// Runes is an archive of bundles (runes.ReadTar). They replace those of the same name.
	Runes []byte
	// History has the last changes, newest first; the first one made this layer.
	History []Change
}

// Change is one step of the layer.
type Change struct {
	Version uint64    `toml:"version" json:"version"` // of the override that brought it
	Time    time.Time `toml:"time" json:"time"`       // by the clock of the operator's computer
	What    string    `toml:"what" json:"what"`       // for people
	// Digest is the layer's that the change made; zero for the layer that this is in.
	Digest Digest `toml:"digest,omitempty" json:"digest,omitzero"`
}

// The names in the archive, in their order.
const (
	headName  = "layer.toml"
	runesName = "runes.tar"
)

// head is the layout of layer.toml.
type head struct {
	Format   int                          `toml:"format"`
	Off      []string                     `toml:"off,omitempty"`
	Settings map[string]map[string]string `toml:"rune,omitempty"`
	History  []Change                     `toml:"change,omitempty"`
}

const format = 1

// Encode returns the layer as bytes, which depend on the layer only.
func (l Layer) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	text, err := toml.Marshal(head{Format: format, Off: l.Off, Settings: l.Settings, History: l.History})
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", headName, err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct {
		name string
		data []byte
	}{{headName, text}, {runesName, l.Runes}} {
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if out.Len() > MaxSize {
		return nil, fmt.Errorf("the live layer would have %d bytes, and may have %d: put large files into the image, or on a server", out.Len(), MaxSize)
	}
	return out.Bytes(), nil
}

// Decode reads what Encode returned.
func Decode(data []byte) (l Layer, err error) {
	if len(data) > MaxSize {
		return l, fmt.Errorf("a live layer of %d bytes, want up to %d", len(data), MaxSize)
	}
	r := tar.NewReader(bytes.NewReader(data))
	text, err := next(r, headName)
	if err != nil {
		return l, err
	}
	var h head
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&h); err != nil {
		return l, fmt.Errorf("%s of the live layer: %w", headName, err)
	}
	if h.Format != format {
		return l, fmt.Errorf("%s of the live layer has format %d; this version knows %d", headName, h.Format, format)
	}
	l.Off, l.Settings, l.History = h.Off, h.Settings, h.History
	if l.Runes, err = next(r, runesName); err != nil {
		return Layer{}, err
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		return Layer{}, fmt.Errorf("the live layer has more than %s and %s in it", headName, runesName)
	}
	return l, l.check()
}

// next reads the next file of the archive, which has that name.
func next(r *tar.Reader, name string) ([]byte, error) {
	h, err := r.Next()
	if err == nil && (h.Typeflag != tar.TypeReg || h.Name != name) {
		err = fmt.Errorf("found %q in its place", clip(h.Name))
	}
	if err != nil {
		return nil, fmt.Errorf("%s of the live layer: %w", name, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1)) // a sparse file may say that it is larger
	if err == nil && len(data) > MaxSize {
		err = fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	if err != nil {
		return nil, fmt.Errorf("%s of the live layer: %w", name, err)
	}
	return data, nil
}

func (l Layer) check() error {
	switch {
	case len(l.Off) > maxOff || slices.Contains(l.Off, ""):
		return fmt.Errorf("the live layer turns %d runes off, want up to %d with a name each", len(l.Off), maxOff)
	case len(l.History) > MaxChanges:
		return fmt.Errorf("the live layer has a history of %d changes, want up to %d", len(l.History), MaxChanges)
	}
	settings := 0
	for name, values := range l.Settings {
		for key, value := range values {
			settings++
			if settings > maxSettings || name == "" || key == "" || len(value) > maxValue {
				return fmt.Errorf("the live layer has %d settings, and rune.%s.%s of %d bytes: want up to %d, of up to %d bytes each", settings, clip(name), clip(key), len(value), maxSettings, maxValue)
			}
		}
	}
	for _, c := range l.History {
		if len(c.What) > maxText || strings.ContainsFunc(c.What, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("the live layer describes a change by %q: want up to %d printable ASCII characters", clip(c.What), maxText)
		}
	}
	return nil
}

// After returns the layer as the next one after the layer with that pointer: with that
// one's history, and the change that made it in front.
func (l Layer) After(last Layer, pointer Pointer, change Change) Layer {
	if len(change.What) > maxText {
		change.What = change.What[:maxText-3] + "..."
	}
	l.History = []Change{change}
	for i, c := range last.History {
		if i == 0 {
			c.Digest = pointer.Digest
		}
		l.History = append(l.History, c)
	}
	l.History = l.History[:min(len(l.History), MaxChanges)]
	return l
}

// clip shortens what others sent, for an error.
func clip(s string) string { return s[:min(len(s), 80)] }
