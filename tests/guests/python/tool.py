"""A guest in Python: a table of the files below the folders that are its arguments, as JSON.

`--out FILE` writes it to a file. Ends with 1 where a folder cannot be read: a component can say no other number.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys

from wit_world import exports

# Made while the component is: a part of argparse is imported when it is first used, and at run time nothing can be.
PARSER = argparse.ArgumentParser(prog="tool")
PARSER.add_argument("--out", type=pathlib.Path)
PARSER.add_argument("folder", nargs="+", type=pathlib.Path)
PARSER.format_help()


def table(folder: pathlib.Path) -> dict[str, object]:
    """Size and hash of every file below a folder, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found[str(path)] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return found


class Run(exports.Run):
    """What `wasi:cli/run` calls."""

    def run(self) -> None:
        arguments = PARSER.parse_args()
        print(os.environ.get("GREETING", "hello"), "from Python", flush=True)
        found = {}
        for folder in arguments.folder:
            if not folder.is_dir():
                sys.exit(f"{folder}: no such folder")
            found |= table(folder)
        text = json.dumps(found, indent=1, sort_keys=True)
        if arguments.out:
            arguments.out.write_text(text)
        else:
            print(text)
