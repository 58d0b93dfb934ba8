// Package version is which tenantwatch this is.
package version
