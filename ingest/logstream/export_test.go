package logstream

// MaxBody is the largest body that is read.
const MaxBody = maxBody
