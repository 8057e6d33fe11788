#!/bin/sh
# Condense a verbose pip build: a line that counts ninja's steps, and whatever went wrong. The whole
# log is kept in build/build.log.
mkdir -p build
terminal=0
[ -t 1 ] && terminal=1
exec tee build/build.log | awk -v terminal="$terminal" '
    match($0, /\[[0-9]+\/[0-9]+\]/) {
        step = substr($0, RSTART + 1, RLENGTH - 2)
        split(step, n, "/")
        percent = int(100 * n[1] / n[2])
        if (n[2] > 1 && terminal) printf "\r  compiling: %d of %d (%d %%)   ", n[1], n[2], percent
        else if (n[2] > 1 && percent >= told + 20) {
            told = percent
            printf "  compiling: %d %%\n", percent
        }
        fflush()
        next
    }
    /[Ee]rror[ :]|FAILED|Successfully installed/ { printf "\n%s", $0; fflush() }
    END { print "" }
'
