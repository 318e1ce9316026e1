package bootrecord

// block is what a merged record counts in, in bytes: a piece of the usual length,
// which is what a machine fetches at once.
const block = 128 << 10

// Merge makes one record, to fetch along, of those of several machines; those of
// another image than the first one's are ignored. Its ranges are whole blocks of
// 128 KiB, so it says less than each of them about the files that were read.
//
// The records are read round robin, in the order in which they are given, so the same
// records give the same result. Each time a record adds the next block of its own that is
// not there yet. So wherever one looks, of n records one that lies has added at most every
// n-th block so far, unless the others have nothing left to add: it delays what the
// others read by a share of 1/n and cannot push it out. This holds for records that are
// merged in one call, one per machine; a merged record counts as one.
func Merge(records ...Record) Record {
	if len(records) == 0 {
		return Record{}
	}
	var blocks [][]int
	var size int64
	for _, r := range records {
		if r.Image != records[0].Image {
			continue
		}
		blocks = append(blocks, r.Pieces(block, 0))
		for _, part := range r.Ranges {
			size = max(size, part.end()*Unit)
		}
	}
	merged := NewRecorder(records[0].Image, size)
	for added := true; added; {
		added = false
		for i := range blocks {
			var b int
			b, blocks[i] = next(blocks[i], merged)
			if b >= 0 {
				merged.Read(int64(b)*block, block)
				added = true
			}
		}
	}
	return merged.Record()
}

// next returns the first of the blocks that merged does not have, and those that
// follow it; -1 if there is none.
func next(blocks []int, merged *Recorder) (int, []int) {
	for i, b := range blocks {
		if !merged.has(int64(b) * (block / Unit)) {
			return b, blocks[i+1:]
		}
	}
	return -1, nil
}
