#!/bin/bash
# The login screen of the recipe `desktop` with next to nothing behind it, for tests.
#
# usage: images/desktop-minimal/build.sh FILE
exec "$(dirname "$0")/../debian/build.sh" "$@" desktop-minimal
