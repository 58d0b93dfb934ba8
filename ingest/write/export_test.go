package write

// The bounds of an insert, for tests.
const (
	ChunkRows  = chunkRows
	ChunkBytes = chunkBytes
)
