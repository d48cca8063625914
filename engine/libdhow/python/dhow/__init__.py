"""Dhow's plugins: WebAssembly components that a Python program calls, isolated from it and from each other.

    import dhow

    host = dhow.Host()
    filter = host.load("filter.wasm", grants={"random": True}, limits={"deadline": "50ms"})
    filter.call("handle", {"name": "x", "size": 3})     # values by the plugin's own types
    compress = filter.bytes("compress")                 # func(list<u8>) -> list<u8>, much quicker
    compress(b"...")
    await filter.call_async("handle", {"name": "x", "size": 3})     # for programs with asyncio

A plugin has nothing that it is not granted. Calls release the interpreter's lock, so other threads go on; functions of the host
that a plugin calls hold it. What settings there are is told at `dhow_host_new` and `dhow_loader_set` in include/dhow.h.
"""

import asyncio
import ctypes
import inspect
import itertools
import json
import os
import threading

from ._native import DONE, HOST_FUNCTION, HOST_FUNCTION_ASYNC, RELEASE, SINK, TRACE, Buffer, CallOptions, lib

__all__ = [
    "Busy", "BytesFunction", "Cancel", "Cancelled", "Deadline", "Denied", "Error", "GuestError", "Host", "HostError",
    "ImageError", "Incompatible", "LoadError", "NoFunction", "OutOfFuel", "OutOfMemory", "Plugin", "Resting", "Trap",
    "UsageError", "trace", "version",
]  # fmt: skip


class Error(Exception):
    """What a plugin, or the use of one, can end in. `details` has what else is known."""

    def __init__(self, message, details=None):
        super().__init__(message)
        self.details = details or {}


class Deadline(Error):
    """The call took longer than it may."""


class Cancelled(Error):
    """The host gave the call up."""


class OutOfMemory(Error):
    """The instance wanted more memory than it may have."""


class OutOfFuel(Error):
    """The call needed more instructions than it may."""


class Trap(Error):
    """The plugin did what no program may. `backtrace` has its functions, the last one first."""

    @property
    def backtrace(self):
        return self.details.get("backtrace", [])


class Denied(Error):
    """The plugin used what it was not granted: `capability`."""

    @property
    def capability(self):
        return self.details.get("capability")


class GuestError(Error):
    """The plugin's own answer is an error: `value`."""

    @property
    def value(self):
        return self.details.get("value")


class Incompatible(Error):
    """Types differ: `details` has what, expected and found."""


class NoFunction(Error):
    """There is no such function: `details["has"]` has those there are."""


class HostError(Error):
    """A function of the host failed. Where that was an exception of Python's, it is the cause of this one."""


class Busy(Error):
    """There are as many instances as there can be."""


class Resting(Error):
    """It has failed and is left alone for a while."""


class LoadError(Error):
    """The code cannot be read, compiled or linked."""


class ImageError(Error):
    """The image is not there, or not trusted."""


class UsageError(Error, ValueError):
    """Settings or arguments that are none."""


# In the order of dhow_kind.
_KINDS = [
    Error, Deadline, Cancelled, OutOfMemory, OutOfFuel, Trap, Denied, GuestError, Incompatible, NoFunction, HostError, HostError,
    Busy, Resting, LoadError, ImageError, UsageError,
]  # fmt: skip

# What a function of the host raised in this thread, to be told as the cause.
_raised = threading.local()


def _error(pointer):
    kind = lib.dhow_error_kind(pointer)
    message = lib.dhow_error_message(pointer).take().decode()
    details = json.loads(lib.dhow_error_details(pointer).take())
    lib.dhow_error_free(pointer)
    error = (_KINDS[kind] if kind < len(_KINDS) else Error)(message, details)
    cause, _raised.error = getattr(_raised, "error", None), None
    if isinstance(error, HostError):
        error.__cause__ = cause
    return error


def _check(function, *arguments):
    """Calls a function whose last argument is where the error goes; raises it."""
    error = ctypes.c_void_p()
    answer = function(*arguments, ctypes.byref(error))
    if error.value is not None:
        raise _error(error)
    return answer


def version():
    """The version of libdhow."""
    return lib.dhow_version().decode()


_tracer = None


def trace(function):
    """From now on tells `function` of every span that ends, once per process: dicts with span, plugin, function, nanoseconds,
    error where it failed, and within where another one is around it."""
    global _tracer
    tracer = TRACE(lambda _, span: function(json.loads(span)))
    _check(lib.dhow_trace, tracer, None)
    _tracer = tracer


def _options(*, deadline=None, cancel=None, memory=None, fuel=None, output=None):
    nanoseconds = 0 if deadline is None else max(1, int(deadline * 1e9))
    # 0 would be none of the call's own.
    memory, fuel, output = (0 if limit is None else max(1, limit) for limit in (memory, fuel, output))
    return ctypes.byref(CallOptions(nanoseconds, cancel._get() if cancel else None, memory, fuel, output))


class _Owner:
    """Something of the library's that is freed with this object."""

    _free = None
    _handle = None

    def close(self):
        """Frees it now; it must not be used any more."""
        handle, self._handle = self._handle, None
        if handle is not None:
            type(self)._free(handle)

    def __del__(self):
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _get(self):
        if self._handle is None:
            raise UsageError(f"this {type(self).__name__.lower()} is closed")
        return self._handle


class Cancel(_Owner):
    """Gives calls up from another thread, those to come, too."""

    _free = staticmethod(lib.dhow_cancel_free)

    def __init__(self):
        self._handle = lib.dhow_cancel_new()

    def cancel(self):
        lib.dhow_cancel(self._get())


class Host(_Owner):
    """Where plugins live. Settings: store, cache, scratch, instances, ceiling."""

    _free = staticmethod(lib.dhow_host_free)

    def __init__(self, **settings):
        self._handle = _check(lib.dhow_host_new, _json(settings))

    def load(self, source, *, functions=None, output=None, image=False, **settings):
        """Loads a plugin: code as bytes, a file, or with `image=True` an image of the host's store.

        `functions` are those of the host: {"name": f} or {("interface", "name"): f}. They get values and give one; what they
        raise ends the call with HostError. Those that are `async` run in the asyncio loop in which this is called, or without
        one in a thread of their own. `output` gets what the plugin writes, as bytes, if `grants` has output. Settings:
        name, grants, requested, limits, pool, rest_after_failure.
        """
        host, keeps = self._get(), []
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = bytes(source)
            loader = _check(lib.dhow_loader_bytes, host, source, len(source))
        elif image:
            loader = _check(lib.dhow_loader_image, host, source.encode())
        else:
            loader = _check(lib.dhow_loader_file, host, os.fsencode(source))
        try:
            _check(lib.dhow_loader_set, loader, _json(settings))
            for name, function in (functions or {}).items():
                interface, name = (None, name) if isinstance(name, str) else (name[0].encode(), name[1])
                if inspect.iscoroutinefunction(function):
                    give, function = lib.dhow_loader_function_async, _host_function_async(function, _loop())
                else:
                    give, function = lib.dhow_loader_function, _host_function(function)
                keeps.append(function)
                _check(give, loader, interface, name.encode(), function, None, RELEASE())
            if output is not None:
                keeps.append(SINK(lambda _, data, length: output(ctypes.string_at(data, length))))
                _check(lib.dhow_loader_output, loader, keeps[-1], None, RELEASE())
            return Plugin(_check(lib.dhow_loader_load, loader), keeps)
        finally:
            lib.dhow_loader_free(loader)

    def connect(self, name):
        """A plugin of the host's store that `dhow plugin run` keeps in a process of its own, Wasm or native (Linux)."""
        return Plugin(_check(lib.dhow_plugin_connect, self._get(), name.encode()), [])


def _json(value):
    return json.dumps(value, default=os.fspath).encode()


def _host_function(function):
    def call(_, arguments, answer):
        try:
            value = function(*json.loads(arguments))
            text, failed = (b"" if value is None else _json(value)) or b"null", 0
        except BaseException as error:
            _raised.error = error
            text, failed = f"{type(error).__name__}: {error}".encode(), 1
        lib.dhow_buffer_set(answer, text, len(text))
        return failed

    return HOST_FUNCTION(call)


def _host_function_async(function, loop):
    async def answer(arguments, reply):
        try:
            value = await function(*arguments)
            text, failed = (b"" if value is None else _json(value)) or b"null", False
        except BaseException as error:
            text, failed = f"{type(error).__name__}: {error}".encode(), True
        lib.dhow_reply(reply, failed, text, len(text))

    def call(_, arguments, reply):
        work = answer(json.loads(arguments), reply)
        try:
            asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError as error:
            work.close()
            text = f"its loop is closed: {error}".encode()
            lib.dhow_reply(reply, True, text, len(text))

    return HOST_FUNCTION_ASYNC(call)


_own_loop = None
_own_loop_lock = threading.Lock()


def _loop():
    """The loop that runs here, or one in a thread of its own."""
    global _own_loop
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        with _own_loop_lock:
            if _own_loop is None:
                _own_loop = asyncio.new_event_loop()
                threading.Thread(target=_own_loop.run_forever, name="dhow", daemon=True).start()
            return _own_loop


# Who waits for the answers of asynchronous calls, by number.
_waiting = {}
_numbers = itertools.count(1)


def _tell(number, answer, error):
    """Called in a thread of the library's."""
    loop, future = _waiting.pop(number)
    if error is not None:
        answer, error = None, _error(ctypes.c_void_p(error))
    else:
        answer = Buffer(answer.data, answer.length).take()

    def end():
        if not future.done():
            future.set_result(json.loads(answer)) if error is None else future.set_exception(error)

    try:
        loop.call_soon_threadsafe(end)
    except RuntimeError:
        # The loop is closed: nobody waits.
        pass


_DONE = DONE(_tell)


class Plugin(_Owner):
    """A loaded plugin. It may be called from any number of threads at the same time."""

    _free = staticmethod(lib.dhow_plugin_free)

    def __init__(self, handle, keeps):
        self._handle, self._keeps = handle, keeps

    def call(self, name, *arguments, **limits):
        """Calls `name` or `interface#name`: values as docs/plugins.md has them in JSON.

        Limits of this call: deadline (seconds), memory, fuel, output; `cancel` gives it up.
        """
        answer = Buffer()
        options = _options(**limits)
        _check(
            lib.dhow_plugin_call, self._get(), name.encode(), _json(arguments), options, ctypes.byref(answer)
        )
        return json.loads(answer.take())

    async def call_async(self, name, *arguments, cancel=None, **limits):
        """As `call`, without keeping a thread. A task that is cancelled gives the call up."""
        own = cancel or Cancel()
        loop = asyncio.get_running_loop()
        future, number = loop.create_future(), next(_numbers)
        _waiting[number] = loop, future
        try:
            options = _options(cancel=own, **limits)
            _check(
                lib.dhow_plugin_call_async, self._get(), name.encode(), _json(arguments), options, _DONE, number
            )
        except BaseException:
            _waiting.pop(number, None)
            raise
        try:
            return await future
        except asyncio.CancelledError:
            own.cancel()
            raise

    def bytes(self, name):
        """A function that takes bytes and gives bytes, as one of Python's."""
        return BytesFunction(_check(lib.dhow_plugin_bytes, self._get(), name.encode()), self)

    def functions(self):
        """Its functions with their types, by name."""
        found = json.loads(lib.dhow_plugin_functions(self._get()).take())
        return {function["name"]: function["type"] for function in found}

    def stats(self):
        """What has happened to it; times are in nanoseconds."""
        return json.loads(lib.dhow_plugin_stats(self._get()).take())

    def reload(self, source):
        """Replaces its code. Calls that are under way end with the old one; when this fails the old one stays."""
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = bytes(source)
            _check(lib.dhow_plugin_reload_bytes, self._get(), source, len(source))
        else:
            _check(lib.dhow_plugin_reload_file, self._get(), os.fsencode(source))

    def refresh(self):
        """Loads what its image's reference means now; says whether that was something else."""
        changed = ctypes.c_bool()
        _check(lib.dhow_plugin_refresh, self._get(), ctypes.byref(changed))
        return changed.value

    def remembers(self, key):
        """What it remembers under a key, or None."""
        value = Buffer()
        found = _check(lib.dhow_kv_get, self._get(), key.encode(), ctypes.byref(value))
        return value.take() if found == 1 else None

    def remember(self, key, value):
        """Makes it remember bytes, or forget a key (None); says whether there was room, or something to forget."""
        if value is None:
            return _check(lib.dhow_kv_delete, self._get(), key.encode()) == 1
        return _check(lib.dhow_kv_set, self._get(), key.encode(), value, len(value)) == 1


class BytesFunction(_Owner):
    """A function of a plugin from bytes to bytes."""

    _free = staticmethod(lib.dhow_bytes_free)

    def __init__(self, handle, plugin):
        self._handle, self._plugin = handle, plugin

    def __call__(self, data, **limits):
        answer = Buffer()
        options = _options(**limits)
        _check(lib.dhow_bytes_call, self._get(), bytes(data), len(data), options, ctypes.byref(answer))
        return answer.take()
