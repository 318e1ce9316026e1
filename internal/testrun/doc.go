// Package testrun runs one tier of the project's tests with go test and shows
// how far it is: each test or package as it ends, what failed and why, what was
// skipped, and the tables that tests made.
//
// It finds out which tests are meant (Parse, Select), follows the events of
// go test -json (Report), and keeps everything that was printed in a log.
//
// The invariant: nothing is hidden. What go test calls a failure stays one, a
// test that did not end has failed, and the log has every line.
package testrun
