#!/bin/sh
# Puts the shim on the node that is mounted at /host and tells its containerd. What is there already is left as it is.
#   BIN, CONFIGURATION   folders of the node     VERSION   1 or 2, of containerd     RESTART   a command on the node
set -eu
host=${HOST:-/host}
here=$(dirname "$0")
changed=
place() { # place FILE TARGET MODE: whole or not at all
    cmp -s "$1" "$2" && return 0
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv "$2.new" "$2"
    changed=yes
}
place "$here/containerd-shim-dhow-v1" "$host$BIN/containerd-shim-dhow-v1" 755
place "$here/containerd/${VERSION}.x.toml" "$host$CONFIGURATION/dhow.toml" 644
[ "$VERSION" != 1 ] || place "$here/containerd/dhow.toml" "$host/etc/containerd/dhow.toml" 644
if [ -n "$changed" ] && [ -n "${RESTART:-}" ]; then
    nsenter --target 1 --mount --uts --ipc --net --pid -- sh -c "$RESTART"
fi
