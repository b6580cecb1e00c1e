#!/bin/sh
# The two values in @ are filled in by the build.
echo "@GREETING@: I know @COUNT@ words, and I run as uid $(id -u)"
cat /usr/share/hello/words.txt
