package vfield

import "testing"

func TestPickRead(t *testing.T) {
	plain := func(i int) request { return request{piece: i} }
	urgent := func(i int) request { return request{piece: i, urgent: true} }
	due := func(i int) request { return request{piece: i, due: true} }
	for name, c := range map[string]struct {
		head, ahead int
		requests    []request
		bad         int
		want        int
	}{
		"nothing to do":                         {10, -1, nil, -1, -1},
		"on in order":                           {10, 10, nil, -1, 10},
		"what peers request for waits its turn": {10, 10, []request{plain(13), plain(300), plain(2)}, -1, 10},
		"not for ever":                          {10, 10, []request{plain(13), due(300)}, -1, 300},
		"long asked for, and nearly reached":    {10, 10, []request{due(42)}, -1, 10},
		"not quite so near":                     {10, 10, []request{due(43)}, -1, 43},
		"near, but nothing to read on the way":  {10, 60, []request{due(40)}, -1, 40},
		"a process does not wait":               {10, 10, []request{due(300), urgent(200)}, -1, 200},
		"unless it is on the way":               {10, 10, []request{urgent(14)}, -1, 10},
		"back to where reading ahead was":       {200, 10, nil, -1, 10},
		"a short way is read, not skipped":      {10, 13, nil, -1, 10},
		"a longer one is skipped":               {10, 15, nil, -1, 15},
		"what cannot be read is skipped":        {10, 13, nil, 10, 13},
		"all read ahead: upwards":               {10, -1, []request{plain(4), plain(40), plain(30)}, -1, 30},
		"all read ahead: again from below":      {50, -1, []request{plain(14), plain(40)}, -1, 14},
		"no room: through small gaps":           {10, -1, []request{plain(12)}, -1, 10},
		"two processes, the nearer one":         {10, -1, []request{urgent(90), urgent(60)}, -1, 60},
		"at the place":                          {10, -1, []request{plain(10)}, -1, 10},
		"behind is not on the way":              {10, -1, []request{urgent(9)}, -1, 9},
		"due and on the way: nothing skipped":   {10, 10, []request{due(12)}, -1, 10},
	} {
		if got := pickRead(c.head, c.ahead, c.requests, func(i int) bool { return i == c.bad }); got != c.want {
			t.Errorf("%s: piece %d, want %d", name, got, c.want)
		}
	}
}
