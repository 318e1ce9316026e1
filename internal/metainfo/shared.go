package metainfo

import "crypto/sha1"

// Shared tells which pieces of an image somebody who holds another image, old, need not
// fetch: for each piece of in the first one of old with the same bytes, at whatever place,
// or -1 if old has none. The caller checks the bytes, as it checks all.
func (in *Info) Shared(old *Info) []int {
	places := make(map[[sha1.Size]byte]int, old.NumPieces())
	for i := range old.NumPieces() {
		if _, known := places[old.PieceHash(i)]; !known {
			places[old.PieceHash(i)] = i
		}
	}
	shared := make([]int, in.NumPieces())
	for i := range shared {
		// Equal hashes of pieces with different sizes are a lie of one of the two.
		at, found := places[in.PieceHash(i)]
		if !found || old.PieceSize(at) != in.PieceSize(i) {
			at = -1
		}
		shared[i] = at
	}
	return shared
}

// Missing is how many bytes somebody fetches for the image who holds the image old.
func (in *Info) Missing(old *Info) int64 {
	var n int64
	for i, at := range in.Shared(old) {
		if at < 0 {
			n += in.PieceSize(i)
		}
	}
	return n
}
