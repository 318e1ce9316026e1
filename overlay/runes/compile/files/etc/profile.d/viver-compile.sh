# shellcheck shell=sh disable=SC1091 # rendered while the machine runs
# Of VIVER's rune "compile"; without it the file that is read is not there.
if [ -r /run/viver-compile/profile ]; then . /run/viver-compile/profile; fi
