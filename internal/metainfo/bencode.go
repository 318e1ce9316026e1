package metainfo

import (
	"errors"
	"fmt"

	"github.com/anacrolix/torrent/bencode"
)

// maxDepth bounds nesting. An info dictionary needs four levels.
const maxDepth = 32

// Unmarshal decodes bencoded bytes from outside into v, as encoding/json
// does. It first checks the whole text, because the decoder beneath panics on
// some malformed lengths and recurses as deep as the input says.
func Unmarshal(data []byte, v any) error {
	rest, err := skipValue(data, maxDepth)
	if err != nil {
		return fmt.Errorf("bencode at byte %d: %w", len(data)-len(rest), err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("bencode: %d bytes after the end", len(rest))
	}
	return bencode.Unmarshal(data, v)
}

var errTruncated = errors.New("ends too early")

// skipValue returns what follows the first value of b. With an error it
// returns what was left where the error was found.
func skipValue(b []byte, depth int) ([]byte, error) {
	if depth == 0 {
		return b, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if len(b) == 0 {
		return b, errTruncated
	}
	switch c := b[0]; {
	case c == 'i':
		return skipInt(b[1:])
	case c >= '0' && c <= '9':
		return skipString(b)
	case c == 'l' || c == 'd':
		return skipItems(b[1:], c == 'd', depth)
	default:
		return b, fmt.Errorf("unexpected byte %q", c)
	}
}

// skipItems passes over the items of a list or, when dict, over the keys and
// values of a dictionary.
func skipItems(b []byte, dict bool, depth int) ([]byte, error) {
	for {
		if len(b) == 0 {
			return b, errTruncated
		}
		if b[0] == 'e' {
			return b[1:], nil
		}
		var err error
		if dict {
			if b, err = skipString(b); err != nil {
				return b, err
			}
		}
		if b, err = skipValue(b, depth-1); err != nil {
			return b, err
		}
	}
}

// skipInt passes over the digits and the closing letter of an integer.
func skipInt(b []byte) ([]byte, error) {
	i := 0
	if i < len(b) && b[i] == '-' {
		i++
	}
	first := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	switch {
	case i == len(b):
		return b, errTruncated
	case i == first || i > first+19 || b[i] != 'e':
		return b, errors.New("malformed integer")
	case b[first] == '0' && i > 1:
		return b, errors.New("integer with a leading zero")
	}
	return b[i+1:], nil
}

func skipString(b []byte) ([]byte, error) {
	n, i := 0, 0
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		n = n*10 + int(b[i]-'0')
		if n > len(b) {
			return b, errTruncated
		}
		i++
	}
	switch {
	case i == len(b):
		return b, errTruncated
	case i == 0 || b[i] != ':':
		return b, errors.New("malformed string length")
	case b[0] == '0' && i > 1:
		return b, errors.New("string length with a leading zero")
	case len(b)-i-1 < n:
		return b, errTruncated
	}
	return b[i+1+n:], nil
}
