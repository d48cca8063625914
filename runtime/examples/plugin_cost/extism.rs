//! Extism as a contender: its shared library, opened by name, driven as its header says. Not part of any product; only a
//! program with a dynamic loader has it (`bench/plugins` builds one).

#![expect(unsafe_code, reason = "calls of a C library that is found at run time")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

/// A plugin for Extism that does what the component of `plugin_cost` does: nothing, or the input as its output, moved in
/// words of eight bytes as Extism's own kits for guests move it.
const TEXT: &str = r#"(module
    (import "extism:host/env" "input_length" (func $length (result i64)))
    (import "extism:host/env" "input_load_u64" (func $load8 (param i64) (result i64)))
    (import "extism:host/env" "input_load_u8" (func $load (param i64) (result i32)))
    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
    (import "extism:host/env" "store_u64" (func $store8 (param i64 i64)))
    (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
    (import "extism:host/env" "output_set" (func $output (param i64 i64)))
    (memory (export "memory") 4)
    (func (export "nothing") (result i32) (i32.const 0))
    (func (export "echo") (result i32)
        (local $all i64) (local $words i64) (local $at i64) (local $out i64)
        (local.set $all (call $length))
        (local.set $words (i64.and (local.get $all) (i64.const -8)))
        (block $in (loop $next
            (br_if $in (i64.ge_u (local.get $at) (local.get $words)))
            (i64.store (i32.add (i32.const 4096) (i32.wrap_i64 (local.get $at))) (call $load8 (local.get $at)))
            (local.set $at (i64.add (local.get $at) (i64.const 8)))
            (br $next)))
        (block $in (loop $next
            (br_if $in (i64.ge_u (local.get $at) (local.get $all)))
            (i32.store8 (i32.add (i32.const 4096) (i32.wrap_i64 (local.get $at))) (call $load (local.get $at)))
            (local.set $at (i64.add (local.get $at) (i64.const 1)))
            (br $next)))
        (local.set $out (call $alloc (local.get $all)))
        (local.set $at (i64.const 0))
        (block $in (loop $next
            (br_if $in (i64.ge_u (local.get $at) (local.get $words)))
            (call $store8 (i64.add (local.get $out) (local.get $at))
                (i64.load (i32.add (i32.const 4096) (i32.wrap_i64 (local.get $at)))))
            (local.set $at (i64.add (local.get $at) (i64.const 8)))
            (br $next)))
        (block $in (loop $next
            (br_if $in (i64.ge_u (local.get $at) (local.get $all)))
            (call $store (i64.add (local.get $out) (local.get $at))
                (i32.load8_u (i32.add (i32.const 4096) (i32.wrap_i64 (local.get $at)))))
            (local.set $at (i64.add (local.get $at) (i64.const 1)))
            (br $next)))
        (call $output (local.get $out) (local.get $all))
        (i32.const 0)))"#;

/// The functions of `extism.h` that are used here.
#[derive(Debug, Clone, Copy)]
struct Functions {
    version: extern "C" fn() -> *const c_char,
    compile: extern "C" fn(*const u8, u64, *const *const c_void, u64, bool, *mut *mut c_char) -> *mut c_void,
    compiled_free: extern "C" fn(*mut c_void),
    make: extern "C" fn(*const c_void, *mut *mut c_char) -> *mut c_void,
    free: extern "C" fn(*mut c_void),
    call: extern "C" fn(*mut c_void, *const c_char, *const u8, u64) -> i32,
    output_length: extern "C" fn(*mut c_void) -> u64,
    output_data: extern "C" fn(*mut c_void) -> *const u8,
}

/// The library with the plugin compiled.
#[derive(Debug)]
pub(crate) struct Extism {
    functions: Functions,
    compiled: *mut c_void,
}

/// An instance of it.
#[derive(Debug)]
pub(crate) struct Instance<'a> {
    functions: Functions,
    plugin: *mut c_void,
    _of: &'a Extism,
}

impl Extism {
    /// Opens `libextism` and compiles the plugin.
    pub(crate) fn open(library: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let path = CString::new(library)?;
        // SAFETY: a path that ends with a zero; the library stays open for good.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: text of the loader, there after a failure.
            let reason = unsafe { CStr::from_ptr(libc::dlerror()) };
            return Err(reason.to_string_lossy().into_owned().into());
        }
        let find = |name: &CStr| {
            // SAFETY: an open library and a name that ends with a zero.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if found.is_null() {
                Err(format!("{library}: has no {}", name.to_string_lossy()))
            } else {
                Ok(found)
            }
        };
        // SAFETY: the types are those of extism.h 1.41 for functions of these names.
        let functions = unsafe {
            use std::mem::transmute;
            Functions {
                version: transmute::<*mut c_void, extern "C" fn() -> *const c_char>(find(c"extism_version")?),
                compile: transmute::<
                    *mut c_void,
                    extern "C" fn(
                        *const u8,
                        u64,
                        *const *const c_void,
                        u64,
                        bool,
                        *mut *mut c_char,
                    ) -> *mut c_void,
                >(find(c"extism_compiled_plugin_new")?),
                compiled_free: transmute::<*mut c_void, extern "C" fn(*mut c_void)>(find(
                    c"extism_compiled_plugin_free",
                )?),
                make: transmute::<*mut c_void, extern "C" fn(*const c_void, *mut *mut c_char) -> *mut c_void>(
                    find(c"extism_plugin_new_from_compiled")?,
                ),
                free: transmute::<*mut c_void, extern "C" fn(*mut c_void)>(find(c"extism_plugin_free")?),
                call: transmute::<
                    *mut c_void,
                    extern "C" fn(*mut c_void, *const c_char, *const u8, u64) -> i32,
                >(find(c"extism_plugin_call")?),
                output_length: transmute::<*mut c_void, extern "C" fn(*mut c_void) -> u64>(find(
                    c"extism_plugin_output_length",
                )?),
                output_data: transmute::<*mut c_void, extern "C" fn(*mut c_void) -> *const u8>(find(
                    c"extism_plugin_output_data",
                )?),
            }
        };
        let module = wat::parse_str(TEXT)?;
        let mut error = ptr::null_mut();
        let compiled =
            (functions.compile)(module.as_ptr(), module.len() as u64, ptr::null(), 0, false, &raw mut error);
        if compiled.is_null() {
            return Err("extism does not compile the plugin".into());
        }
        Ok(Self { functions, compiled })
    }

    pub(crate) fn version(&self) -> String {
        // SAFETY: text that the library has for good.
        unsafe { CStr::from_ptr((self.functions.version)()) }.to_string_lossy().into_owned()
    }

    /// An instance from what is compiled.
    pub(crate) fn instance(&self) -> Instance<'_> {
        let mut error = ptr::null_mut();
        let plugin = (self.functions.make)(self.compiled, &raw mut error);
        assert!(!plugin.is_null(), "extism makes no instance");
        Instance { functions: self.functions, plugin, _of: self }
    }
}

impl Drop for Extism {
    fn drop(&mut self) {
        (self.functions.compiled_free)(self.compiled);
    }
}

impl Instance<'_> {
    /// A call from bytes to bytes.
    pub(crate) fn call(&mut self, name: &CStr, input: &[u8]) -> Vec<u8> {
        let Functions { call, output_length, output_data, .. } = self.functions;
        let code = call(self.plugin, name.as_ptr(), input.as_ptr(), input.len() as u64);
        assert_eq!(code, 0, "extism's call failed");
        let length = usize::try_from(output_length(self.plugin)).expect("a length");
        if length == 0 {
            return Vec::new();
        }
        // SAFETY: the output of the last call, as long as the library says; copied before the next call.
        unsafe { std::slice::from_raw_parts(output_data(self.plugin), length) }.to_vec()
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        (self.functions.free)(self.plugin);
    }
}
