// Package eventfile reads files of events, such as an export of a tenant's log: one object a line, or one array
// of objects, each bare or in the envelope of a log stream.
package eventfile
