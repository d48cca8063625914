#!/bin/sh
# Puts the shim on the node that is mounted at /host and tells its containerd. What is there already is left as it is.
#   BIN             a folder of the node, for the program
#   CONFIGURATION   containerd's own file, or what a distribution makes it from. No file that it imports: containerd before 2.0 forgets
#                   all other settings of a plugin that an imported file has something of, runc among them.
#                   A folder is one whose files are put together: k0s's, or of containerd 2.
#   VERSION         of containerd, 1 or 2; for nodes where no file says which language it is written in
#   RESTART         a command on the node
set -eu
host=${HOST:-/host}
here=$(dirname "$0")
# There as long as containerd has not read what was placed: the next try tells it, whatever became of this one.
untold=$host$BIN/.containerd-shim-dhow-v1.untold
begin='# containerd-shim-dhow-v1: begin (by its installer)'
end='# containerd-shim-dhow-v1: end'
refuse() {
    echo "install: $host$CONFIGURATION: $1" >&2
    exit 1
}
place() { # place FILE TARGET MODE: whole or not at all
    cmp -s "$1" "$2" && return 0
    mkdir -p "$(dirname "$2")" "$(dirname "$untold")"
    [ ! -e "$2" ] || cp -p "$2" "$2.new"
    cat "$1" >"$2.new"
    [ -z "$3" ] || chmod "$3" "$2.new"
    : >"$untold"
    mv "$2.new" "$2"
}
# The file as it is to be, on standard output.
configuration() {
    file=$1
    if [ -e "$file" ]; then
        awk -v begin="$begin" -v end="$end" '$0 == begin { ours = 1 } !ours; $0 == end { ours = 0 }' "$file" >"$wanted.rest"
    else
        case $file in *.tmpl) echo '{{ template "base" . }}' ;; *) echo "version = $((VERSION + 1))" ;; esac >"$wanted.rest"
    fi
    # Somebody's own.
    if grep -q "^[[:space:]]*\[plugins\..*\.runtimes\.[\"']\{0,1\}dhow[\"']\{0,1\}\]" "$wanted.rest"; then
        cat "$wanted.rest"
        return 0
    fi
    language=$(sed -n 's/^[[:space:]]*version[[:space:]]*=[[:space:]]*\([0-9]*\).*/\1/p' "$wanted.rest" | head -n 1)
    if [ -z "$language" ]; then
        case $file in *v3.toml.tmpl) language=3 ;; *.tmpl) language=2 ;; esac
    fi
    case $language in
    2) ;;
    3 | 4) language=3 ;;
    *) refuse "not of version 2 or later (hint: containerd config migrate)" ;;
    esac
    cat "$wanted.rest"
    echo "$begin"
    cat "$here/containerd/version-$language.toml"
    echo "$end"
}

wanted=$(mktemp)
trap 'rm -f "$wanted" "$wanted.rest"' EXIT
target=$host$CONFIGURATION
if [ -d "$target" ]; then
    case $VERSION$CONFIGURATION in
    1*k0s* | 2*) ;;
    *) refuse "containerd $VERSION does not merge files (hint: its own file)" ;;
    esac
    { echo "version = $((VERSION + 1))" && cat "$here/containerd/version-$((VERSION + 1)).toml"; } >"$wanted"
    target=$target/dhow.toml
else
    configuration "$target" >"$wanted"
fi
place "$here/containerd-shim-dhow-v1" "$host$BIN/containerd-shim-dhow-v1" 755
place "$wanted" "$target" ""
[ -e "$untold" ] || exit 0
# Before the command, which may end this pod: a mark that stayed would have containerd restarted again and again.
rm "$untold"
if [ -n "${RESTART:-}" ] && ! nsenter --target 1 --mount --uts --ipc --net --pid -- sh -c "$RESTART"; then
    : >"$untold"
    echo "install: not restarted: $RESTART" >&2
    exit 1
fi
