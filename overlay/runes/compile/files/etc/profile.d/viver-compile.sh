# Of VIVER's rune "compile"; without it the file that is read is not there.
if [ -r /run/viver-compile/profile ]; then . /run/viver-compile/profile; fi
