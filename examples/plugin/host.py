"""A host application in Python: loads a plugin, gives it a function, calls it, and survives what it does."""

import sys
import threading

import dhow


def write_log(text):
    print("the plugin says", text)
    if text == "Mallory":
        raise PermissionError("not you")


host = dhow.Host()
plugin = host.load(
    sys.argv[1],
    name="filter",
    limits={"deadline": "2s"},
    functions={("acme:filter/log", "write"): write_log},
)
for name, of in plugin.functions().items():
    print(name, "is", of)

# Values by the plugin's own types.
print("it answers", plugin.call("greet", {"name": "Ada", "age": 36}))

# Its own errors, those of this program, wrong arguments, a crash, a loop: each is told apart.
for name, arguments in [
    ("greet", [{"name": ""}]),
    ("greet", [{"name": "Mallory"}]),
    ("greet", [{"name": 1}]),
    ("crash", []),
    ("spin", []),
    ("nosuch", []),
]:
    try:
        plugin.call(name, *arguments, deadline=0.02 if name == "spin" else None)
        raise SystemExit("no error")
    except dhow.GuestError as error:
        print("GuestError", error.value)
    except dhow.HostError as error:
        print("HostError", repr(error.__cause__))
    except dhow.Trap as error:
        print("Trap", error, error.backtrace[0].split("@")[0])
    except dhow.Error as error:
        print(type(error).__name__, error)

# Bytes as they are, from several threads at once.
reverse = plugin.bytes("reverse")


def turns():
    assert all(reverse(b"stressed") == b"desserts" for _ in range(200))


threads = [threading.Thread(target=turns) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

# Given up from another thread.
cancel = dhow.Cancel()
threading.Timer(0.05, cancel.cancel).start()
try:
    plugin.call("spin", cancel=cancel)
except dhow.Cancelled as error:
    print("Cancelled", error)

stats = plugin.stats()
print({name: stats[name] for name in ("errors", "traps", "deadlines", "host", "cancelled")})
