#!/bin/sh
# Condense a verbose pip build: one line that counts ninja's steps, and whatever went wrong.
exec awk '
    match($0, /\[[0-9]+\/[0-9]+\]/) {
        step = substr($0, RSTART + 1, RLENGTH - 2)
        split(step, n, "/")
        if (n[2] > 1 && n[1] != last) {
            printf "\r  compiling %s of %s (%d %%)   ", n[1], n[2], 100 * n[1] / n[2]
            fflush()
            last = n[1]
        }
        next
    }
    /error|Error|FAILED|Successfully installed/ { printf "\n%s", $0; fflush() }
    END { print "" }
'
