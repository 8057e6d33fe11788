#!/bin/sh
# Name each missing tool in one line, with what to do about it.
missing=0

need() { # command, what it is for, Debian package
    if ! command -v "$1" > /dev/null 2>&1; then
        echo "avllm: '$1' is missing ($2). On Debian: apt-get install $3" >&2
        missing=1
    fi
}

python=${1:-python3}
need "$python" "runs everything" "python3 python3-venv"
need c++ "compiles llama.cpp" "g++"
need cmake "configures the build, 3.24 or newer" "cmake"
need npm "builds the web page, with Node.js 20.19 or newer" "nodejs npm"
if command -v node > /dev/null 2>&1; then
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' || {
        echo "avllm: Node.js $(node --version) is too old for the web page's build: 20.19 or newer is needed" >&2
        missing=1
    }
fi
if command -v "$python" > /dev/null 2>&1; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "avllm: $python is too old: 3.10 or newer is needed. make PYTHON=python3.12 chooses one" >&2
        missing=1
    }
    "$python" -c 'import venv, ensurepip' 2> /dev/null || {
        echo "avllm: $python cannot make virtual environments. On Debian: apt-get install python3-venv" >&2
        missing=1
    }
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || {
        echo "avllm: the headers of $python are missing. On Debian: apt-get install python3-dev" >&2
        missing=1
    }
fi
exit $missing
