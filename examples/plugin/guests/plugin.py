"""A plugin in Python, of the world in plugin.wit. `tests/guests/build OUT plugins` builds it."""

import wit_world
from componentize_py_types import Err


class WitWorld(wit_world.WitWorld):
    """What the world exports."""

    def reverse(self, bytes: bytes) -> bytes:
        return bytes[::-1]

    def greet(self, name: str) -> str:
        if not name:
            raise Err("no name")
        return f"Hello, {name}!"
