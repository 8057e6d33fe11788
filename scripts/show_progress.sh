#!/bin/sh
# Condense a verbose pip build: a line that counts ninja's steps, and whatever went wrong. The whole
# log is kept in build/build.log.
mkdir -p build
exec tee build/build.log | awk '
    match($0, /\[[0-9]+\/[0-9]+\]/) {
        step = substr($0, RSTART + 1, RLENGTH - 2)
        split(step, n, "/")
        if (n[2] > 1 && n[1] != last) {
            printf "\r  compiling: %d of %d (%d %%)   ", n[1], n[2], 100 * n[1] / n[2]
            fflush()
            last = n[1]
        }
        next
    }
    /[Ee]rror[ :]|FAILED|Successfully installed/ { printf "\n%s", $0; fflush() }
    END { print "" }
'
