// Package lint finds mistakes in rules: what a document says but hardly means, as far as that can be
// known without events. Each check has a file; checks lists them.
package lint
