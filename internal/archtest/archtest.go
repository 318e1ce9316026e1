// Package archtest holds the rules of the house as tests.
//
// It has no code of its own. The rules: imports point strictly down the floors
// listed in docs/architecture.md, every package explains itself once, what belongs to
// programs (exit codes, flags) stays in programs, and bytes from outside are
// decoded where a fuzz target is.
package archtest
