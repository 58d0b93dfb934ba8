// Package datadir is for a folder whose files belong to one process at a time, such as that of an
// embedded engine: it locks the folder, and replaces files in it so that they survive a crash.
package datadir
