package schedule

import "testing"

// What two sets have in common is drawn evenly, and nothing else is.
func TestSetCommon(t *testing.T) {
	a, b := NewSet(200), NewSet(200)
	if _, ok := a.Common(&b, func(int) int { return 0 }); ok {
		t.Error("empty sets have something in common")
	}
	for i := range 200 {
		a.Set(i, i%2 == 0)
		b.Set(i, i%3 == 0)
	}
	for n := range 34 {
		i, ok := a.Common(&b, func(count int) int {
			if count != 34 {
				t.Fatalf("%d common members", count)
			}
			return n
		})
		if !ok || i != 6*n {
			t.Errorf("member %d is %d, %v", n, i, ok)
		}
	}
}
