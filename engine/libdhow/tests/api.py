"""Everything that a host in Python can do with plugins: api.py GUEST OUTPUT-GUEST [DHOW]. It says nothing where all is well.

With the program `dhow` images and plugins that run are part of it.
"""

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time

import dhow

guest, writer = sys.argv[1:3]


def raises(kind, function, *arguments, **settings):
    try:
        got = function(*arguments, **settings)
    except kind as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"no {kind.__name__} but {got!r}")


def ask(n):
    if n == 0:
        raise PermissionError("not zero")
    return "eight" if n == 1 else 8


async def wait(n):
    if n == 0:
        raise PermissionError("not zero")
    await asyncio.sleep(60 if n == 9 else 0.002)
    return n + 1


functions = {"ask": ask, ("acme:host/slow", "wait"): wait}


def load(host, **settings):
    return host.load(guest, functions=functions, **settings)


spans = []
dhow.trace(spans.append)
raises(dhow.UsageError, dhow.trace, spans.append)

# What is none.
raises(dhow.UsageError, dhow.Host, colour=1)
host = dhow.Host()
raises(dhow.UsageError, host.load, "acme/none:1", image=True)
raises(dhow.UsageError, host.connect, "none")
raises(dhow.UsageError, host.load, guest, colour=1)
raises(dhow.LoadError, host.load, b"nothing")
raises(dhow.LoadError, host.load, "/nowhere.wasm")
missing = raises(dhow.Incompatible, host.load, guest)
assert "ask" in missing.details["expected"], missing.details

# Nothing granted; nothing asked for; a ceiling.
plain = load(host)
assert raises(dhow.Denied, plain.call, "roll").capability.startswith("wasi:random/random")
raises(dhow.Denied, plain.call, "remember", 1)
raises(dhow.UsageError, plain.remembers, "key")
raises(dhow.Denied, load(host, grants={"random": True}, requested={}).call, "roll")
raises(dhow.Denied, load(dhow.Host(ceiling={}), grants={"random": True}).call, "roll")

# Limits of the plugin, and those of one call.
limits = {"memory": 131072, "deadline": "1s", "fuel": 1 << 50, "output": 1000}
plugin = load(host, name="limited", grants={"random": True, "kv": 500}, pool={"size": 1}, limits=limits)
assert plugin.call("roll") != plugin.call("roll")
assert raises(dhow.OutOfMemory, plugin.call, "grow").details["limit"] == 131072
raises(dhow.OutOfMemory, plugin.call, "count", memory=10)
raises(dhow.OutOfFuel, plugin.call, "spin", fuel=1000)
raises(dhow.Deadline, plugin.call, "spin", deadline=0.01)
assert raises(dhow.Trap, plugin.call, "trap").backtrace[0].split("@")[0].endswith("deep")
assert raises(dhow.GuestError, plugin.call, "check", False).value == 7
assert plugin.call("check", True) is None
raises(dhow.Incompatible, plugin.call, "check", 1)
assert "count" in raises(dhow.NoFunction, plugin.call, "none").details["has"]
echo = plugin.bytes("echo")
assert echo(b"x" * 900) == b"x" * 900
raises(dhow.Trap, echo, b"x" * 2000)
assert len(echo(b"x" * 2000, output=5000)) == 2000
raises(dhow.Incompatible, plugin.bytes, "count")

# What it remembers.
assert plugin.call("remember", 5) and not plugin.call("remember", 700)
assert plugin.remembers("key") == b"key\0\0" and plugin.remembers("other") is None
assert plugin.remember("mine", b"x" * 10) and not plugin.remember("mine", b"x" * 2000)
assert plugin.remember("mine", None) and not plugin.remember("mine", None)

# Functions of the host: at once, and `async` in a loop of their own.
assert plugin.call("ask", 2) == 8
assert isinstance(raises(dhow.HostError, plugin.call, "ask", 0).__cause__, PermissionError)
raises(dhow.HostError, plugin.call, "ask", 1)
assert plugin.call("wait", 1) == 2
assert "not zero" in str(raises(dhow.HostError, plugin.call, "wait", 0))
raises(dhow.Deadline, plugin.call, "wait", 9, deadline=0.02)

# Giving up.
cancel = dhow.Cancel()
threading.Timer(0.02, cancel.cancel).start()
raises(dhow.Cancelled, plugin.call, "spin", cancel=cancel, deadline=20)
stats = plugin.stats()
assert stats["traps"] == 2 and stats["cancelled"] == 1 and stats["largest"] == 65536, stats
assert stats["calls"] > 10 and stats["p99"] >= stats["median"] > 0, stats

# What was seen of it.
seen = [span for span in spans if span.get("plugin") == "limited"]
assert seen[0]["span"] == "plugin.load" and seen[0]["nanoseconds"] > 0, seen[0]
assert sum(span["span"] == "plugin.call" for span in seen) == stats["calls"], (len(seen), stats)
trapped = next(span for span in seen if span.get("function") == "trap")
assert "unreachable" in trapped["error"] and trapped["nanoseconds"] > 0, trapped


async def within_a_loop():
    """Calls that keep no thread: the loop goes on meanwhile, and its own functions are called."""
    plugin = load(host, limits={"deadline": "20s"}, pool={"size": 4})
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await asyncio.gather(*(plugin.call_async("wait", n) for n in range(1, 8))) == list(range(2, 9))
    for kind, call in [
        (dhow.Deadline, plugin.call_async("spin", deadline=0.03)),
        (dhow.Deadline, plugin.call_async("wait", 9, deadline=0.03)),
        (dhow.HostError, plugin.call_async("wait", 0)),
        (dhow.NoFunction, plugin.call_async("none")),
        (dhow.Trap, plugin.call_async("trap")),
    ]:
        try:
            raise AssertionError(f"no {kind.__name__} but {await call!r}")
        except kind:
            pass
    assert ticks >= 10, ticks
    # A task that is cancelled gives its call up.
    waiting = asyncio.create_task(plugin.call_async("wait", 9))
    await asyncio.sleep(0.02)
    waiting.cancel()
    try:
        await waiting
        raise AssertionError("not cancelled")
    except asyncio.CancelledError:
        pass
    ticking.cancel()
    until = time.monotonic() + 20
    while plugin.stats()["cancelled"] != 1 and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert plugin.stats()["cancelled"] == 1


asyncio.run(within_a_loop())

# Instances, other code, rest.
other = (
    b"(component (core module $m (func (export \"count\") (result i32) (i32.const 99)))"
    b" (core instance $i (instantiate $m)) (func (export \"count\") (result u32) (canon lift (core func $i \"count\"))))"
)
assert [plain.call("count") for _ in range(3)] == [1, 1, 1]
warm = load(host, pool={"size": 1, "calls": 2}, rest_after_failure={"first": 60, "most": 60})
assert [warm.call("count") for _ in range(4)] == [1, 2, 1, 2]
raises(dhow.Trap, warm.call, "trap")
assert raises(dhow.Resting, warm.call, "count").details["milliseconds"] > 0
raises(dhow.LoadError, warm.reload, b"nothing")
warm.reload(other)
assert warm.call("count") == 99
warm.reload(guest)
assert warm.call("count") == 1
raises(dhow.UsageError, warm.refresh)
assert warm.functions()["check"] == "func(bool) -> result<_, u32>"
small = load(dhow.Host(instances=1))
busy = threading.Thread(target=lambda: raises(dhow.Deadline, small.call, "wait", 9, deadline=0.3))
busy.start()
until = time.monotonic() + 20
while small.stats()["instances"] == 0 and time.monotonic() < until:
    time.sleep(0.001)
raises(dhow.Busy, small.call, "count")
busy.join()

# Output, if it is granted.
for granted in [False, True]:
    seen = []
    host.load(writer, output=seen.append, grants={"output": granted}).call("run")
    assert b"".join(seen) == (b"hello from a component\n" if granted else b""), seen

# What was closed is not used.
plain.close()
raises(dhow.UsageError, plain.call, "count")
del plain, warm, plugin, small
gc.collect()

# Folders.
with tempfile.TemporaryDirectory() as folder:
    os.mkdir(f"{folder}/empty")
    os.mkdir(f"{folder}/data")
    host = dhow.Host(scratch=f"{folder}/empty")
    directory = {"path": f"{folder}/data", "name": "/data", "write": True}
    assert load(host, grants={"directories": [directory]}).call("count") == 1
    gone = {"path": f"{folder}/gone", "name": "/data"}
    raises(dhow.LoadError, load, host, grants={"directories": [gone]})
    raises(dhow.LoadError, load, dhow.Host(), grants={"directories": [directory]})

if len(sys.argv) > 3:
    with tempfile.TemporaryDirectory() as folder:

        def command(*arguments):
            done = subprocess.run([sys.argv[3], "--root", f"{folder}/root", *arguments], capture_output=True, cwd=folder)
            assert done.returncode == 0, done.stderr
            return done.stdout.decode()

        for name, code in [("one", open(guest, "rb").read()), ("two", other)]:
            with open(f"{folder}/plugin.wat", "wb") as file:
                file.write(code)
            with open(f"{folder}/Dockerfile", "w") as file:
                file.write("FROM scratch\nCOPY plugin.wat /\nENTRYPOINT [\"/plugin.wat\"]\n")
                file.write("LABEL dev.dhow.plugin.requests='{\"random\": true}'\n")
            command("build", "-q", "-t", f"acme/{name}:1", "--platform", "wasi/wasm", ".")
        command("tag", "acme/one:1", "acme/moves:1")
        host = dhow.Host(store=f"{folder}/root")
        raises(dhow.ImageError, host.load, "acme/none:1", image=True)
        raises(dhow.ImageError, host.load, "acme/one@sha256:" + "0" * 64, image=True)
        moves = host.load("acme/moves:1", image=True, functions=functions, grants={"random": True, "kv": 100})
        moves.call("roll")
        # It has not asked for that.
        raises(dhow.Denied, moves.call, "remember", 1)
        assert moves.call("count") == 1 and not moves.refresh()
        command("tag", "acme/two:1", "acme/moves:1")
        assert moves.refresh() and moves.call("count") == 99
        with open(f"{folder}/policy.json", "w") as file:
            file.write('{"default": [{"type": "reject"}]}')
        strict = dhow.Host(store=f"{folder}/root", policy=f"{folder}/policy.json")
        assert "not trusted" in str(raises(dhow.ImageError, strict.load, "acme/two:1", image=True))
        # One in a process of its own.
        command("plugin", "run", "-d", "--name", "apart", "acme/two:1")
        apart = host.connect("apart")
        assert apart.call("count") == 99 and asyncio.run(apart.call_async("count")) == 99
        assert apart.functions() == {"count": "func() -> u32"}
        raises(dhow.NoFunction, apart.call, "none")
        raises(dhow.Incompatible, apart.call, "count", 1)
        raises(dhow.UsageError, apart.reload, other)
        assert apart.stats()["calls"] == 2
        command("plugin", "rm", "-f", "apart")
        raises(dhow.Trap, apart.call, "count")
        raises(dhow.UsageError, host.connect, "apart")
