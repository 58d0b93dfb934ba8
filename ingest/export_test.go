package ingest

// The bounds of an insert, for tests.
const (
	ChunkRows  = chunkRows
	ChunkBytes = chunkBytes
)
