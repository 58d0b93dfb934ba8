// Package expr evaluates conditions on events: the compiled form of what detection rules say of
// one event. It knows nothing of the files of rules, nor of what follows from a match.
//
// A loader makes Fields and, with them, a Tree for each condition: And, Or and Not over tests of a
// field (Test, Exists), whose values are Checks. Fields.Program compiles a list of Trees; a Matcher
// evaluates a Program for one event after the other. A Matcher also explains the result of each
// part of a Tree.
//
// # Values
//
// Text is compared case-insensitively unless a Check says otherwise; numbers and booleans are also
// compared with their text. Null also matches an absent field. A test of an array holds when it
// holds for one of its members. A field may be written with the envelope of a log stream
// ("data.type") or without, and arrays with "{}"; events may come in either form.
//
// # Speed
//
// A Matcher reads only those parts of an event that its conditions refer to. Conditions that test
// the type are reduced, for each type, to what the type leaves undecided. For the others, an index
// of the texts that they require selects the conditions that an event may satisfy.
package expr
