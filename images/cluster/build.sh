#!/bin/bash
# The recipe `debian` with what the runes of a computing network need: shared homes,
# compiling and parallel programs on all machines, one clock, one log.
#
# usage: images/cluster/build.sh FILE
exec "$(dirname "$0")/../debian/build.sh" "$@" cluster
