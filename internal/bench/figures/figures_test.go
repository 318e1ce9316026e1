package figures

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The keys of a row are a format that others read.
func TestKeysOfARow(t *testing.T) {
	r := Row{System: "nbd", N: 1, Start: Simultaneous, MeanVsNBD1: 0.97654321, DemandP50: None()}
	text, err := Encode([]Row{r, r})
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v in %s", err, text)
	}
	var keys []string
	for k := range rows[0] {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	want := strings.Fields("cpu_recv_s_per_gb cpu_send_s_per_gb demand_p50_ms demand_p99_ms file_bytes link_mbit machine_busy mean_vs_nbd1 n origin_copies runs start system worst_vs_nbd1")
	if !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
	if rows[0]["demand_p50_ms"] != nil || rows[0]["mean_vs_nbd1"] != 0.9765 {
		t.Errorf("%v", rows[0])
	}
	var back []Row
	if err := json.Unmarshal(text, &back); err != nil || !back[0].DemandP50.Missing() || back[0].MeanVsNBD1 != 0.9765 {
		t.Errorf("%v %+v", err, back)
	}
}

func TestVerdict(t *testing.T) {
	rows := []Row{
		{System: "vfield", N: 4, LinkMbit: 100, Start: Simultaneous, MeanVsNBD1: 0.95, WorstVsNBD1: 0.84, OriginCopies: 1.01, DemandP50: None()},
		{System: "vfield", N: 1, LinkMbit: 100, Start: Simultaneous, MeanVsNBD1: None(), DemandP50: 13},
		{System: "nbd", N: 1, LinkMbit: 100, Start: Simultaneous, MeanVsNBD1: None(), DemandP50: 10},
	}
	got := map[string]string{}
	for _, l := range Verdict(rows) {
		got[l.What] = l.word()
	}
	want := map[string]string{"N=4: mean speed / NBD's at N=1": "lands", "N=4: worst node": "TOO LITTLE", "N=4: files the origin sent": "reached",
		"4 KiB demand p50 / NBD's for the piece, 1 reader(s), 100 Mbit/s": "lands"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("verdict %v, want %v", got, want)
	}
}

func TestPictureIsWellFormed(t *testing.T) {
	rows := []Row{
		{System: "vfield", N: 16, LinkMbit: 50, Start: Simultaneous, MeanVsNBD1: 0.95, WorstVsNBD1: 0.9},
		{System: "vfield", N: 1, LinkMbit: 100, Start: Simultaneous, MeanVsNBD1: 1, WorstVsNBD1: 1},
		{System: "vfield", N: 16, LinkMbit: 50, Start: Deaths, MeanVsNBD1: 0.5, WorstVsNBD1: 0.5},
		{System: "nbd", N: 32, LinkMbit: 20, Start: Simultaneous, MeanVsNBD1: 0.03, WorstVsNBD1: 0.03},
		{System: "http", N: 32, LinkMbit: 20, Start: Simultaneous, MeanVsNBD1: 0.03, WorstVsNBD1: 0.03},
	}
	d := xml.NewDecoder(bytes.NewReader(Picture(rows)))
	circles := 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 4 {
		t.Errorf("%d points in the picture, want 4", circles)
	}
}
