// Package chlocal runs an embedded ClickHouse: the real engine, as a child process that serves the native and
// the HTTP protocol on loopback.
//
// It promises that data survives restarts, that an engine that dies is restarted, that the engine ends when
// Close is called or when this process dies in any way, and that every client needs a password. It leaves the
// database, its tables and queries to others.
//
// The child runs clickhouse-local, which listens after SYSTEM START LISTEN. Its last statement reads standard
// input and so ends when that pipe closes, which also happens when the parent dies. If the engine is
// libchdb.so, the child is this program again (see Host), which loads the library without cgo.
//
// Clients do not reach the engine itself: its ports and passwords change with each start and are in no file.
// They connect to the guard, which admits connections of the right protocol with a password. clickhouse-local
// runs its own statements as the user default, who needs no password; a limit of one query at a time keeps
// others from being that user. If the kernel has Landlock, the engine is confined to its own files (see
// confine).
package chlocal
