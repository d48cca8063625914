"""libdhow as ctypes sees it: its types and functions as include/dhow.h has them, and nothing else."""

import ctypes
import os
import pathlib
import sys
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_uint64, c_void_p

_NAMES = {"darwin": "libdhow.dylib", "win32": "dhow.dll"}


def _load():
    """The library that came with this package, unless the variable LIBDHOW names another one."""
    beside = pathlib.Path(__file__).with_name(_NAMES.get(sys.platform, "libdhow.so"))
    return ctypes.CDLL(os.environ.get("LIBDHOW") or str(beside))


class Buffer(ctypes.Structure):
    """Bytes that belong to us until `dhow_buffer_free`."""

    _fields_ = [("data", POINTER(c_uint8)), ("length", c_size_t)]

    def take(self):
        """The bytes as Python's, and the library's are freed."""
        taken = ctypes.string_at(self.data, self.length) if self.data else b""
        lib.dhow_buffer_free(byref(self))
        return taken


class CallOptions(ctypes.Structure):
    """What is special about one call."""

    _fields_ = [
        ("deadline", c_uint64),
        ("cancel", c_void_p),
        ("memory", c_uint64),
        ("fuel", c_uint64),
        ("output", c_size_t),
    ]


DONE = ctypes.CFUNCTYPE(None, c_void_p, Buffer, c_void_p)
HOST_FUNCTION_ASYNC = ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_void_p)
HOST_FUNCTION = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, POINTER(Buffer))
SINK = ctypes.CFUNCTYPE(None, c_void_p, POINTER(c_uint8), c_size_t)
TRACE = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)
RELEASE = ctypes.CFUNCTYPE(None, c_void_p)

lib = _load()
_FUNCTIONS = {
    "dhow_version": (c_char_p, []),
    "dhow_trace": (c_bool, [TRACE, c_void_p, POINTER(c_void_p)]),
    "dhow_buffer_free": (None, [POINTER(Buffer)]),
    "dhow_buffer_set": (None, [POINTER(Buffer), c_char_p, c_size_t]),
    "dhow_error_kind": (c_int, [c_void_p]),
    "dhow_error_message": (Buffer, [c_void_p]),
    "dhow_error_details": (Buffer, [c_void_p]),
    "dhow_error_free": (None, [c_void_p]),
    "dhow_host_new": (c_void_p, [c_char_p, POINTER(c_void_p)]),
    "dhow_host_free": (None, [c_void_p]),
    "dhow_loader_file": (c_void_p, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "dhow_loader_bytes": (c_void_p, [c_void_p, c_char_p, c_size_t, POINTER(c_void_p)]),
    "dhow_loader_image": (c_void_p, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "dhow_loader_set": (c_bool, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "dhow_loader_function": (
        c_bool,
        [c_void_p, c_char_p, c_char_p, HOST_FUNCTION, c_void_p, RELEASE, POINTER(c_void_p)],
    ),
    "dhow_loader_function_async": (
        c_bool,
        [c_void_p, c_char_p, c_char_p, HOST_FUNCTION_ASYNC, c_void_p, RELEASE, POINTER(c_void_p)],
    ),
    "dhow_reply": (None, [c_void_p, c_bool, c_char_p, c_size_t]),
    "dhow_loader_output": (c_bool, [c_void_p, SINK, c_void_p, RELEASE, POINTER(c_void_p)]),
    "dhow_loader_load": (c_void_p, [c_void_p, POINTER(c_void_p)]),
    "dhow_loader_free": (None, [c_void_p]),
    "dhow_plugin_functions": (Buffer, [c_void_p]),
    "dhow_plugin_stats": (Buffer, [c_void_p]),
    "dhow_plugin_reload_file": (c_bool, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "dhow_plugin_reload_bytes": (c_bool, [c_void_p, c_char_p, c_size_t, POINTER(c_void_p)]),
    "dhow_plugin_refresh": (c_bool, [c_void_p, POINTER(c_bool), POINTER(c_void_p)]),
    "dhow_plugin_call": (
        c_bool,
        [c_void_p, c_char_p, c_char_p, POINTER(CallOptions), POINTER(Buffer), POINTER(c_void_p)],
    ),
    "dhow_plugin_call_async": (
        c_bool,
        [c_void_p, c_char_p, c_char_p, POINTER(CallOptions), DONE, c_void_p, POINTER(c_void_p)],
    ),
    "dhow_plugin_connect": (c_void_p, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "dhow_plugin_bytes": (c_void_p, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "dhow_plugin_free": (None, [c_void_p]),
    "dhow_bytes_call": (
        c_bool,
        [c_void_p, c_char_p, c_size_t, POINTER(CallOptions), POINTER(Buffer), POINTER(c_void_p)],
    ),
    "dhow_bytes_free": (None, [c_void_p]),
    "dhow_cancel_new": (c_void_p, []),
    "dhow_cancel": (None, [c_void_p]),
    "dhow_cancel_free": (None, [c_void_p]),
    "dhow_kv_get": (c_int32, [c_void_p, c_char_p, POINTER(Buffer), POINTER(c_void_p)]),
    "dhow_kv_set": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t, POINTER(c_void_p)]),
    "dhow_kv_delete": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
}
for _name, (_result, _arguments) in _FUNCTIONS.items():
    _function = getattr(lib, _name)
    _function.restype, _function.argtypes = _result, _arguments
