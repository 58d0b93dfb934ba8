// Package sleep waits for a time that the end of a context cuts short.
package sleep
