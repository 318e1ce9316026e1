package event

import "testing"

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
