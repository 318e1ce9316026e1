#!/bin/sh
# A task of a job array: counts the primes in its part of the numbers, with the Lua that
# all machines have built, and says on which machine.
echo "$(hostname) $("$HOME/bin/lua" /usr/src/programs/primes.lua "$SLURM_ARRAY_TASK_ID" "$SLURM_ARRAY_TASK_COUNT")"
