// Package chlocal starts and stops an embedded ClickHouse: the real engine, as
// a child process that serves the native and the HTTP protocol on loopback.
//
// It promises that data is kept over restarts, that an engine that dies is started
// again, that it ends when Close is called or when this process dies, however it
// dies, and that nobody gets in without a password. It leaves the database, its
// tables and queries to others.
//
// The child runs clickhouse-local, which listens when it is told SYSTEM START
// LISTEN. Its last statement reads standard input and so ends when that pipe
// closes, which is also what happens when the parent dies. Where the engine is
// libchdb.so the child is this very program again (see Host), which loads the
// library without cgo.
//
// Nobody reaches the engine itself: its ports and passwords change with each start
// and are in no file. Clients come to the guard, which lets through what is of the
// right protocol and has a password. clickhouse-local runs its own statements as the
// user default, who needs none; a limit of one query at a time keeps others from
// being that user. Where the kernel has Landlock, the engine is confined to its own
// files (see confine).
package chlocal
