package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

// liar is a node that shows overrides and a layer as it likes, and takes all that it is
// sent.
type liar struct {
	listener
	shown []operator.Override
	layer []byte
	live  *control.Live

	got  []operator.Override // guarded by mu
	sent []byte              // the last layer, guarded by mu
}

func (l *liar) MemberStatus() control.Status { return l.Status() }

func (l *liar) Status() control.Status {
	return control.Status{Network: "lab", Overrides: l.shown, Live: l.live}
}
func (l *liar) Layer(context.Context, livelayer.Digest) ([]byte, error) {
	if l.layer == nil {
		return nil, livestore.ErrNotHere
	}
	return l.layer, nil
}
func (l *liar) AddLayer(layer []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = layer
	return nil
}
func (l *liar) PutOverride(o operator.Override) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, o)
	return nil
}

// The operator signs nothing that is made of what a node invents.
func TestNothingInventedIsSigned(t *testing.T) {
	dir := t.TempDir()
	mine, _, err := sign.OpenKey(dir + "/mine.key")
	if err != nil {
		t.Fatal(err)
	}
	other, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	layer := livechange.Empty()
	layer.Off = []string{"users"}
	layer.History = []livelayer.Change{{Version: 7, What: "rune remove users"}}
	data, err := layer.Encode()
	if err != nil {
		t.Fatal(err)
	}
	live := operator.Override{Network: "lab", Key: livelayer.Key, Value: livelayer.PointTo(data).String(), Sequence: 7}
	by := func(key sign.PrivateKey, o operator.Override) operator.Override {
		o.Signature = key.Sign(sign.Override, o.SignedBytes())
		return o
	}
	elsewhere, last := live, operator.Override{Network: "lab", Key: "name/x", Value: "x", Sequence: 1<<64 - 2}
	elsewhere.Network = "field"
	changed := by(mine, live)
	changed.Sequence++
	for what, test := range map[string]struct {
		shown operator.Override
		next  uint64 // the sequence of what is signed, 0 for nothing
		said  string
	}{
		"mine":                    {by(mine, live), 8, "network lab: the next version is made of version 7\n"},
		"unsigned":                {live, 0, "that you did not sign"},
		"another's":               {by(other, live), 0, "that you did not sign"},
		"of another network":      {by(mine, elsewhere), 0, "that you did not sign"},
		"changed":                 {changed, 0, "that you did not sign"},
		"the last sequence":       {by(other, last), 1, "network lab: the next version is made of version 0\n"},
		"a high one, but of mine": {by(mine, operator.Override{Network: "lab", Key: "name/x", Value: "x", Sequence: 40}), 41, "made of version 0\n"},
	} {
		l := &liar{shown: []operator.Override{test.shown}, layer: data}
		socket := serve(t, l)
		_, out, errs := operate(t, dir, "rune", "set", "time", "servers=a", "--key", dir+"/mine.key", "--socket", socket)
		if !strings.Contains(out+errs, test.said) || len(l.got) != min(int(test.next), 1) || len(l.got) > 0 && l.got[0].Sequence != test.next {
			t.Errorf("%s: it signed %+v, and said %s%s", what, l.got, out, errs)
		}
		if test.next == 0 || test.shown.Key == livelayer.Key {
			continue
		}
		if code, _, errs := operate(t, dir, "node", "set", "52:54:00:00:00:01", "--name", "a", "--key", dir+"/mine.key", "--socket", socket); code != exitOK || len(l.got) != 2 || l.got[1].Sequence != test.next {
			t.Errorf("%s: a name is signed as %+v: %s", what, l.got, errs)
		}
	}
}

// Of two operators who change something at once, the one whose version is replaced is told,
// also if both are of the same number.
func TestAReplacedVersion(t *testing.T) {
	mine, other := livelayer.PointTo([]byte("mine")), livelayer.PointTo([]byte("other"))
	for _, test := range []struct {
		live     control.Live
		replaced bool
	}{
		{control.Live{Version: 4, Digest: other.Digest}, false}, // it is not told yet
		{control.Live{Version: 5, Digest: mine.Digest}, false},
		{control.Live{Version: 5, Digest: other.Digest}, true},
		{control.Live{Version: 6, Digest: other.Digest}, true},
	} {
		socket := serve(t, &liar{live: &test.live})
		err := liveNode{control.NewClient(socket), socket}.spread(t.Context(), io.Discard, mine, 5)
		if (err != nil) != test.replaced {
			t.Errorf("%+v: %v", test.live, err)
		}
	}
}

// A layer that nobody has any more does not end all changes: the network can be taken back
// to how it was booted.
func TestALostLayer(t *testing.T) {
	dir := t.TempDir()
	mine, _, err := sign.OpenKey(dir + "/mine.key")
	if err != nil {
		t.Fatal(err)
	}
	pointer := livelayer.PointTo([]byte("lost"))
	o := operator.Override{Network: "lab", Key: livelayer.Key, Value: pointer.String(), Sequence: 7, Time: 1e18}
	o.Signature = mine.Sign(sign.Override, o.SignedBytes())
	l := &liar{shown: []operator.Override{o}}
	socket := serve(t, l)
	for _, args := range []string{"rune set time servers=a", "rune rollback", "rune rollback 3"} {
		code, _, errs := operate(t, dir, append(strings.Fields(args), "--key", dir+"/mine.key", "--socket", socket)...)
		if code != exitFailed || !strings.Contains(errs, "viver rune rollback 0") || len(l.got) > 0 {
			t.Errorf("%s: %d, %s, %d changes", args, code, errs, len(l.got))
		}
	}
	code, out, errs := operate(t, dir, "rune", "rollback", "0", "--key", dir+"/mine.key", "--socket", socket)
	if code != exitOK || len(l.got) != 1 || l.got[0].Sequence != 8 || !strings.Contains(out, "made of version 7") {
		t.Fatalf("rollback 0: %d, %s%s", code, out, errs)
	}
	layer, err := livelayer.Decode(l.sent)
	if h := layer.History; err != nil || len(h) != 2 || h[0].Version != 8 || h[1].Version != 7 || h[1].Digest != pointer.Digest || h[1].Time.Unix() != 1e9 {
		t.Errorf("%+v, %v", layer.History, err)
	}
}
