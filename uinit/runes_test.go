package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"testing/fstest"

	"viver.lan/internal/control"
	"viver.lan/internal/runes"
)

// What the boot leaves for viver rune list and the status names a rune that could not be
// read, with the reason.
func TestRuneResults(t *testing.T) {
	_, unread := runes.Load(fstest.MapFS{"school/rune.toml": {Data: []byte("name = \"school\"\n\norder = 200\n")}})
	unread = append(unread, errors.New("the archive is cut short"))
	file := filepath.Join(t.TempDir(), "runes-boot.json")
	results := []runes.Result{{Rune: "ssh", Outcome: runes.Applied, Files: []string{"/root/.ssh/authorized_keys"}}}
	if err := control.WriteState(file, runeResults([]runes.Bundle{{Name: "ssh", Description: "keys"}}, results, unread)); err != nil {
		t.Fatal(err)
	}
	got, err := control.ReadRunes(file)
	want := []control.RuneResult{
		{RuneOutcome: control.RuneOutcome{Rune: "school", Outcome: "broken", Reason: "rune.toml:3: order: 200: want 0 to 99"}},
		{RuneOutcome: control.RuneOutcome{Outcome: "broken", Reason: "the archive is cut short"}},
		{RuneOutcome: control.RuneOutcome{Rune: "ssh", Outcome: "applied"}, Description: "keys", Files: results[0].Files},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %s", err, fmt.Sprint(got))
	}
}
