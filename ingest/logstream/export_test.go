package logstream

// Seams for the tests of this package.
var (
	Split = split
	Event = event
)

// MaxBody is the largest body that is read.
const MaxBody = maxBody
