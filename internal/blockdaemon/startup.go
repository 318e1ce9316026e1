package blockdaemon

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootphase"
	"viver.lan/internal/bootrecord"
	"viver.lan/internal/control"
	"viver.lan/internal/cputime"
	"viver.lan/internal/durable"
	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sleep"
)

// maxRecords is how many nodes a booting one asks for their boot records.
const maxRecords = 4

// rootDisk is what a boot wants of the volume, *vfield.Volume.
type rootDisk interface {
	AskRecords(n int)
	DemandOnly(on bool)
	Expect(order []int)
	SetRecord(record []byte)
	Waits() bool
}

// startup is what the block daemon does differently while the machine boots: it
// fetches what the boot reads before its share of the network's copies, along the
// records of machines that have booted, and makes a record for those to come.
type startup struct {
	image  *manifest.Manifest
	volume rootDisk
	log    *slog.Logger
	events *event.Log
	file   string      // for the record
	stages string      // a file: uinit's last word
	peers  chan []byte // records of peers, as they came

	mu       sync.Mutex // guards what follows
	recorder *bootrecord.Recorder
	reads    uint64
	up       bootphase.Reason
}

// newStartup returns the startup of a machine that boots image. One with a record in
// file has booted already, and this daemon takes another one's place.
func newStartup(image *manifest.Manifest, file string, log *slog.Logger, events *event.Log) *startup {
	return &startup{image: image, log: log, events: events, file: file, stages: control.StagesFile,
		peers: make(chan []byte, maxRecords), recorder: bootrecord.NewRecorder(image.Infohash, image.RootFile().Size)}
}

// take takes a peer's record; see vfield.Config.Record.
func (s *startup) take(record []byte) {
	select {
	case s.peers <- record:
	default: // more than were asked for
	}
}

// read notes that length bytes at offset of the root disk are read.
func (s *startup) read(offset, length int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.up == bootphase.Booting {
		s.recorder.Read(offset, length)
	}
}

// isUp returns why the machine counts as up.
func (s *startup) isUp() bootphase.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

// begin has the volume, which does not run yet, fetch nothing but what is read; or
// everything, if the machine has booted already.
func (s *startup) begin(volume rootDisk) {
	s.volume = volume
	record, err := os.ReadFile(s.file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the record of this machine's boot is lost", "error", err)
		}
		volume.DemandOnly(true)
		volume.AskRecords(maxRecords)
		return
	}
	volume.SetRecord(record)
	s.finish(bootphase.Before)
}

// run follows the boot until the machine is up, or ctx ends, and returns nil.
func (s *startup) run(ctx context.Context) error {
	if s.isUp() != bootphase.Booting {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{}, 1)
	g.Go(func() error {
		if err := awaitReady(ctx, control.ReadySocket); err == nil {
			ready <- struct{}{}
		} else if ctx.Err() == nil {
			s.log.Warn("whether the boot has ended is told by what is read only", "error", err)
		}
		return nil
	})
	g.Go(func() error {
		defer cancel()
		load := openLoad(s.log)
		defer load.close()
		s.follow(ctx, ready, load.idle)
		return nil
	})
	return g.Wait()
}

// follow brings the boot to its end, unless ctx ends before. The init says on ready that
// it is over; idle tells how idle the processors were since it was asked last, 0 to 1.
func (s *startup) follow(ctx context.Context, ready <-chan struct{}, idle func() float64) {
	var phase bootphase.Phase
	var records []bootrecord.Record
	tick := time.NewTicker(bootphase.SampleEvery)
	defer tick.Stop()
	began := time.Now()
	for phase.Up() == bootphase.Booting {
		select {
		case <-ctx.Done():
			return
		case <-ready:
			phase.Ready()
		case data := <-s.peers:
			records = s.expect(records, data)
		case <-tick.C:
			phase.Take(s.sample(time.Since(began), idle()))
			s.volume.DemandOnly(!phase.Spare())
		}
	}
	s.end(ctx, phase.Up())
}

func (s *startup) sample(now time.Duration, idle float64) bootphase.Sample {
	_, err := os.Stat(s.stages)
	waiting := s.volume.Waits()
	s.mu.Lock()
	defer s.mu.Unlock()
	return bootphase.Sample{Now: now, Idle: idle, Reads: s.reads, Waiting: waiting, HandedOver: err == nil}
}

// expect adds a peer's record to those along which the volume fetches.
func (s *startup) expect(records []bootrecord.Record, data []byte) []bootrecord.Record {
	r, err := bootrecord.Decode(data, s.image.Infohash, s.image.RootFile().Size)
	if err != nil {
		s.log.Warn("another machine's boot record is not used", "error", err)
		return records
	}
	records = append(records, r)
	merged := bootrecord.Merge(records...)
	s.volume.Expect(merged.Pieces(s.image.PieceLength, 0)) // the root is the payload's first file
	s.log.Info("fetching along the boots of other machines", "records", len(records), "bytes", merged.Bytes())
	return records
}

// keepAgain is the time between two attempts to write the record.
const keepAgain = 10 * time.Second

// end writes the record, for the nodes to come and for a daemon that takes this one's
// place. The supervisor starts @vrune when it is there, so it is tried until ctx ends.
func (s *startup) end(ctx context.Context, why bootphase.Reason) {
	s.mu.Lock()
	record := s.recorder.Record()
	s.mu.Unlock()
	data := record.Encode()
	err := durable.WriteFile(s.file, data, 0o644)
	if err != nil {
		s.log.Warn("the record of this machine's boot is not kept yet, and no rune begins before", "error", err, "again_every", keepAgain)
	}
	s.volume.SetRecord(data)
	s.log.Info("this machine is up", "reason", why, "read", record.Bytes(), "ranges", len(record.Ranges))
	s.finish(why)
	s.events.Emit(event.Up{Reason: string(why), Read: record.Bytes(), Record: data})
	for err != nil && sleep.For(ctx, keepAgain) == nil {
		err = durable.WriteFile(s.file, data, 0o644)
	}
}

// finish has the volume work as on a machine that is up.
func (s *startup) finish(why bootphase.Reason) {
	s.mu.Lock()
	s.up, s.recorder = why, nil
	s.mu.Unlock()
	s.volume.AskRecords(0)
	s.volume.Expect(nil) // what is read from now on is no boot
	s.volume.DemandOnly(false)
}

// load tells how idle the processors were since the last time.
type load struct {
	log   *slog.Logger
	times *cputime.Reader // nil when it cannot be told
	last  cputime.Times
}

func openLoad(log *slog.Logger) *load {
	times, err := cputime.Open()
	if err != nil {
		log.Warn("how busy this machine is cannot be told", "error", err)
	}
	l := &load{log: log, times: times}
	l.idle()
	return l
}

// idle is a share from 0 to 1; 0 when it cannot be told, so that nothing is done
// that might be in the way.
func (l *load) idle() float64 {
	if l.times == nil {
		return 0
	}
	now, err := l.times.Read()
	if err != nil {
		l.log.Debug("how busy this machine is cannot be told", "error", err)
		return 0
	}
	before := l.last
	l.last = now
	return 1 - cputime.Busy(before, now)
}

func (l *load) close() {
	if l.times != nil {
		_ = l.times.Close() // nothing was written to it
	}
}
