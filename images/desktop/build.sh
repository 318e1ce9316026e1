#!/bin/bash
# The recipe `debian` for a classroom: Xfce, a browser, an office, and a login screen on
# which a guest needs no password.
#
# usage: images/desktop/build.sh FILE
exec "$(dirname "$0")/../debian/build.sh" "$@" desktop
