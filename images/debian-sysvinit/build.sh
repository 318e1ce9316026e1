#!/bin/bash
# The recipe `debian` with sysvinit instead of systemd, for tests.
#
# usage: images/debian-sysvinit/build.sh FILE
exec "$(dirname "$0")/../debian/build.sh" "$@" debian-sysvinit
