#!/bin/sh
set -e
# Flags alone are flags of the server.
if [ "${1#-}" != "$1" ]; then
	set -- echo-server "$@"
fi
exec "$@"
