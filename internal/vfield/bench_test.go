package vfield

import (
	"context"
	"crypto/sha1"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/exchange"
)

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkOneAndOne moves a whole image from an origin that holds it in
// memory to one node, unthrottled on loopback, and reads it there in order.
// cpu-s/GB is for both ends together, sha1-s/GB what hashing alone costs on
// this machine.
func BenchmarkOneAndOne(b *testing.B) {
	im := newImage(b, 256<<20)
	begin := cpu()
	sha1.Sum(im.data)
	hashing := cpu() - begin
	o := start(b, im, "origin", origin(im))
	eventually(b, "origin has it in memory", func() bool { return complete(o) })
	b.SetBytes(im.info.Size)
	b.ResetTimer()
	var used time.Duration
	for range b.N {
		b.StopTimer()
		n := start(b, im, "n", nil)
		before := cpu()
		b.StartTimer()
		n.AddPeer(o.Addr(), true)
		buf := make([]byte, 1<<20)
		for off := int64(0); off < n.Size(); off += int64(len(buf)) {
			if err := n.ReadAt(context.Background(), buf[:min(int64(len(buf)), n.Size()-off)], off); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		used += cpu() - before
		n.stop(b)
		b.StartTimer()
	}
	gb := float64(im.info.Size) * float64(b.N) / 1e9
	b.ReportMetric(used.Seconds()/gb, "cpu-s/GB")
	b.ReportMetric(hashing.Seconds()/(float64(im.info.Size)/1e9), "sha1-s/GB")
}

// BenchmarkDemandRead reads 4 KiB from a piece that only the origin has.
func BenchmarkDemandRead(b *testing.B) {
	im := newImage(b, 64<<20)
	o := start(b, im, "origin", origin(im))
	eventually(b, "origin has it in memory", func() bool { return complete(o) })
	n := start(b, im, "n", nil)
	eventually(b, "idle", func() bool {
		n.swarm.Do(func(x *exchange.Exchange) { x.Want(0, n.info.NumPieces(), func(int) bool { return false }) })
		return true
	})
	n.AddPeer(o.Addr(), true)
	eventually(b, "connected", func() bool { s := n.Status(); return len(s.Peers) == 1 && s.Peers[0].Have == s.Pieces })
	buf := make([]byte, 4096)
	b.ResetTimer()
	for k := range b.N {
		i := k * 7919 % n.info.NumPieces()
		if err := n.ReadAt(context.Background(), buf, n.info.PieceOffset(i)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		n.Volume.store.discard(i)
		b.StartTimer()
	}
}
