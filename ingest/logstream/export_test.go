package logstream

// Split is a seam for the tests of this package.
var Split = split

// MaxBody is the largest body that is read.
const MaxBody = maxBody
