package event

import "testing"

func TestWaitingInWords(t *testing.T) {
	for want, w := range map[string]Waiting{
		"no peer is known":                              {Reason: NoPeer},
		"3 peers known, none has answered yet":          {Reason: NeverAnswered, Known: 3},
		"3 peers known, no answer for 14 s":             {Reason: NoAnswer, Known: 3, Silent: 14},
		"1 peer known, no answer for 14 s":              {Reason: NoAnswer, Known: 1, Silent: 14, Asked: []string{"a:1"}},
		"3 peers known, 2 answer, none has it":          {Reason: NoHolder, Known: 3, Answering: 2, Silent: 1},
		"1 peer known, 1 answers, none has it":          {Reason: NoHolder, Known: 1, Answering: 1},
		"3 peers known, 1 has it, none takes a request": {Reason: NoneSends, Known: 3, Answering: 2, Holders: 1},
		"3 peers known, asked a:1 and b:2":              {Reason: Requested, Known: 3, Answering: 2, Holders: 2, Asked: []string{"a:1", "b:2"}},
		"3 peers known, asked a:1, no answer for 6 s":   {Reason: Requested, Known: 3, Answering: 2, Holders: 2, Asked: []string{"a:1"}, Silent: 6},
	} {
		if got := w.String(); got != want {
			t.Errorf("%+v\n got %s\nwant %s", w, got, want)
		}
	}
}

func TestIndependenceInWords(t *testing.T) {
	for want, i := range map[string]Independence{
		"all 9 pieces are kept by nodes other than the first (1 node, at least 1 copy of each)":              {Independent: true, Pieces: 9, Nodes: 1, Replicas: 1},
		"all 9 pieces are kept by nodes other than the first (3 nodes, at least 2 copies of each)":           {Independent: true, Pieces: 9, Nodes: 3, Replicas: 2},
		"image needs 16.8 MB, nodes offer 9.4: the first node must stay":                                     {Missing: 2, Short: true, Needed: 16.8e6, Offered: 9.4e6},
		"image needs 1.7 GB, nodes offer 0.1: the first node must stay":                                      {Missing: 2, Short: true, Needed: 1.7e9, Offered: 90e6},
		"no other node keeps pieces yet":                                                                     {Missing: 9, Pieces: 9},
		"no other node keeps pieces yet; 2 nodes have not proved what they claim":                            {Missing: 9, Pieces: 9, Unproved: 2},
		"2 of 9 pieces are not yet kept by any node besides the first":                                       {Missing: 2, Pieces: 9, Nodes: 1},
		"2 of 9 pieces are not yet kept by any node besides the first; 1 node has not proved what it claims": {Missing: 2, Pieces: 9, Nodes: 1, Unproved: 1},
	} {
		if got := i.String(); got != want {
			t.Errorf("%+v: %q, want %q", i, got, want)
		}
	}
}
