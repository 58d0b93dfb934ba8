// Package rulefiles is the rules of a running instance: the built-in ones and those of TENANTWATCH_RULES, which
// are reloaded when a file changes.
package rulefiles
