package nbd

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
)

// addressed is a connection of which only its remote address and its end count.
type addressed struct {
	net.Conn
	from   string
	closed bool
}

func (c *addressed) RemoteAddr() net.Addr {
	if c.from == "" {
		return &net.UnixAddr{}
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1))
}

func (c *addressed) Close() error { c.closed = true; return nil }

// crowd is n connections of one address, served or still greeting.
type crowd struct {
	from  string
	n     int
	serve bool
}

func TestPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		there []crowd
		from  string
		in    bool
		gone  crowd // of whom one had to leave
	}{
		"the first":                        {nil, "10.0.0.1", true, crowd{}},
		"an address has had its places":    {[]crowd{{"10.0.0.1", maxPerHost, true}}, "10.0.0.1", false, crowd{}},
		"beside one that has":              {[]crowd{{"10.0.0.1", maxPerHost, true}}, "10.0.0.2", true, crowd{}},
		"its own idle one leaves":          {[]crowd{{"10.0.0.1", maxPerHost - 1, true}, {"10.0.0.1", 1, false}}, "10.0.0.1", true, crowd{"10.0.0.1", 1, false}},
		"many idle ones of one address":    {[]crowd{{"10.0.0.2", 1, false}, {"10.0.0.1", maxGreeting - 1, false}}, "10.0.0.3", true, crowd{"10.0.0.1", 1, false}},
		"full, one address has many":       {[]crowd{{"10.0.0.1", 16, true}, {"10.0.0.2", 16, true}, {"10.0.0.3", 16, true}, {"10.0.0.4", 15, true}, {"10.0.0.5", 1, true}}, "10.0.0.6", true, crowd{"", 1, true}},
		"full, and none has more than it":  {[]crowd{{"10.0.0.1", 16, true}, {"10.0.0.2", 16, true}, {"10.0.0.3", 16, true}, {"10.0.0.4", 16, true}}, "10.0.0.1", false, crowd{}},
		"many idle ones of this machine":   {[]crowd{{"", maxConnections - 1, false}}, "", true, crowd{}},
		"this machine's own, beside idle":  {[]crowd{{"10.0.0.1", maxGreeting, false}}, "", true, crowd{}},
		"as many of this machine as it is": {[]crowd{{"", maxConnections, true}}, "", false, crowd{}},
	} {
		t.Run(name, func(t *testing.T) {
			ps := newPlaces()
			var all []*place
			for _, cr := range c.there {
				for range cr.n {
					p := ps.enter(t.Context(), &addressed{from: cr.from})
					if p == nil {
						t.Fatalf("no place for %+v", cr)
					}
					all = append(all, p)
					if cr.serve {
						ps.greeted(p)
					}
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // who would have to wait does not
			if in := ps.enter(ctx, &addressed{from: c.from}) != nil; in != c.in {
				t.Errorf("let in: %v", in)
			}
			gone := 0
			for _, p := range all {
				if !p.conn.(*addressed).closed {
					continue
				}
				gone++
				if a := p.conn.(*addressed); c.gone.from != "" && a.from != c.gone.from || p.greeting == c.gone.serve {
					t.Errorf("one of %s left, greeting %v", a.from, p.greeting)
				}
			}
			if gone != c.gone.n {
				t.Errorf("%d left", gone)
			}
		})
	}
}

// An address that opens connection after connection, idle or as a client that
// asks for nothing, keeps no other out, and itself has no more than its places.
func TestOneAddressKeepsNobodyOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Listen(ctx, l, []Export{{Backend: volume{size: 1 << 20}}}, Options{}) }()
	defer func() {
		cancel()
		<-done
	}()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for n := range 3 * maxConnections {
		c, err := from.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n%2 == 0 {
			c.Write(hello(3, option(1, nil)))
		}
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(append(hello(3, option(1, nil)), wire(request{length: 4096})...))
	if _, err := io.ReadFull(c, make([]byte, 18+10+replySize+4096)); err != nil {
		t.Errorf("the other address: %v", err)
	}
}
