//! The C library's start, without its questions to the processor, for `dhow oci`, `dhow run` and the shim (which has this file
//! as a module, too).
//!
//! Before `main`, glibc asks the processor some eighty times what it is and how large its caches are (`cpuid`), to choose
//! among its functions for copying and searching. In a virtual machine each question goes to the hypervisor: 0.4 ms in all
//! where that is itself a guest, a quarter of the start of a Wasm program, and more than an OCI runtime, which is executed for
//! each step of a container's life, needs for all else before the container's process is there. So here the same steps are
//! taken in the same order, without the questions: then the functions are those for any processor of this architecture,
//! which is as good for strings of a few bytes.
//!
//! What is called are parts of the library that are not for others, so this is done with the one version that it was written
//! for (2.36, static). With any other, with a part missing, and for every other command, the library starts as always.
//!
//! Nothing here may use what is not there yet: no memory but the stack, no string functions, no `panic`. Numbers are read one
//! at a time and as they are, so that no compiler makes a call of such a function of it.

#![expect(unsafe_code, reason = "runs before there is anything that safe code stands on")]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr;

/// The version of the C library whose steps these are.
const VERSION: &[u8] = b"2.36\0";
/// The program's name under which it is an OCI runtime and that of the shim, the word that does the same as the first (see
/// `crate::oci`), and the command that has to be as quick.
const NAMES: [&[u8]; 2] = [b"dhow-oci\0", b"containerd-shim-dhow-v1\0"];
const OCI: &[u8] = b"oci\0";
const RUN: &[u8] = b"run\0";
/// `getauxval(3)`: the program has more rights than who executes it.
const AT_SECURE: usize = 23;
/// From which size on copies go around the caches; what the library takes when it knows nothing.
const LARGE_COPY: c_long = 0xc0000;

type Words = *const *const c_char;
type Main = unsafe extern "C" fn(c_int, Words, Words) -> c_int;
type Start = unsafe extern "C" fn(
    Main,
    c_int,
    Words,
    *const c_void,
    *const c_void,
    *const c_void,
    *mut c_void,
) -> c_int;

/// What is needed of the library. Another one may not have all of it, so the linker is asked for it weakly.
#[repr(C)]
struct Library {
    start: Option<Start>,
    version: Option<unsafe extern "C" fn() -> *const u8>,
    aux_init: Option<unsafe extern "C" fn(*const usize)>,
    tunables_init: Option<unsafe extern "C" fn(Words)>,
    setup_tls: Option<unsafe extern "C" fn()>,
    early_init: Option<unsafe extern "C" fn(bool)>,
    init_first: Option<Main>,
    init: Option<unsafe extern "C" fn()>,
    environ: *mut Words,
    stack_end: *mut *mut c_void,
    random: *const *const u8,
    large_copy: *mut c_long,
    /// First and end of the functions that are chosen now, then of those that come before `main`.
    chosen: *const usize,
    chosen_end: *const usize,
    constructors: *const Main,
    constructors_end: *const Main,
}

std::arch::global_asm!(
    ".pushsection .data.rel.ro.dhow_c_library,\"aw\",@progbits",
    ".balign 8",
    "dhow_c_library:",
    ".irp name, __real___libc_start_main, gnu_get_libc_version, _dl_aux_init, __tunables_init, __libc_setup_tls, __libc_early_init, __libc_init_first, _init, __environ, __libc_stack_end, _dl_random, __x86_shared_non_temporal_threshold, __rela_iplt_start, __rela_iplt_end, __init_array_start, __init_array_end",
    ".weak \\name",
    ".quad \\name",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "dhow_c_library"]
    static LIBRARY: Library;
    fn exit(code: c_int) -> !;
    fn _exit(code: c_int) -> !;
}

/// What the program's first instructions call instead of `__libc_start_main`, where the linker was told so (`build.rs`).
///
/// # Safety
/// Only for the first instructions, with the arguments that `__libc_start_main` takes.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___libc_start_main(
    main: Main,
    argc: c_int,
    argv: Words,
    init: *const c_void,
    fini: *const c_void,
    at_exit: *const c_void,
    stack_end: *mut c_void,
) -> c_int {
    // SAFETY: the linker has filled the table in. The kernel's arguments, environment and auxiliary vector lie behind one
    // another, each with its end.
    unsafe {
        let library = &LIBRARY;
        let environ = argv.offset(argc as isize + 1);
        let mut end = environ;
        while !ptr::read_volatile(end).is_null() {
            end = end.add(1);
        }
        let aux = end.add(1).cast::<usize>();
        if at_exit.is_null() && is_quick(argc, argv) && !is_privileged(aux) {
            begin(library, main, argc, argv, environ, aux, stack_end);
        }
        match library.start {
            Some(start) => start(main, argc, argv, init, fini, at_exit, stack_end),
            None => _exit(127),
        }
    }
}

/// The steps of version 2.36. Comes back, with nothing done, where they are not this library's.
///
/// # Safety
/// As of [`__wrap___libc_start_main`], once.
unsafe fn begin(
    library: &Library,
    main: Main,
    argc: c_int,
    argv: Words,
    environ: Words,
    aux: *const usize,
    stack_end: *mut c_void,
) {
    let (Some(version), Some(aux_init), Some(tunables_init), Some(setup_tls)) =
        (library.version, library.aux_init, library.tunables_init, library.setup_tls)
    else {
        return;
    };
    let (Some(early_init), Some(init_first), Some(init)) =
        (library.early_init, library.init_first, library.init)
    else {
        return;
    };
    let missing = library.environ.is_null()
        || library.stack_end.is_null()
        || library.random.is_null()
        || library.large_copy.is_null()
        || library.chosen.is_null()
        || library.constructors.is_null();
    // SAFETY: the version is a constant string. What follows is, call by call, what the library itself does, but that it
    // leaves what is known about the processor as it is, all zeros: an unknown one.
    unsafe {
        if missing || !is_same(version(), VERSION) {
            return;
        }
        *library.environ = environ;
        *library.stack_end = stack_end;
        aux_init(aux);
        tunables_init(environ);
        *library.large_copy = LARGE_COPY;
        let mut one = library.chosen;
        while one != library.chosen_end {
            // Where the choice goes, what kind it is, and the function that makes it: `Elf64_Rela`.
            let place = ptr::with_exposed_provenance_mut::<usize>(ptr::read_volatile(one));
            let choose: extern "C" fn() -> usize = std::mem::transmute(ptr::read_volatile(one.add(2)));
            ptr::write_volatile(place, choose());
            one = one.add(3);
        }
        setup_tls();
        let random = ptr::read_volatile(library.random);
        let (first, second) = (number_at(random), number_at(random.add(8)));
        // What functions check on their stack, and what is mixed into stored places in code. The former ends strings.
        std::arch::asm!(
            "mov fs:[0x28], {first}",
            "mov fs:[0x30], {second}",
            first = in(reg) first & !0xff,
            second = in(reg) second,
            options(nostack, preserves_flags),
        );
        early_init(true);
        init_first(argc, argv, environ);
        init();
        let mut one = library.constructors;
        while one != library.constructors_end {
            ptr::read_volatile(one)(argc, argv, environ);
            one = one.add(1);
        }
        exit(main(argc, argv, environ));
    }
}

/// The number at a place where none need be.
///
/// # Safety
/// Eight bytes must be there.
unsafe fn number_at(place: *const u8) -> usize {
    let (mut number, mut at) = (0, 0);
    while at < 8 {
        // SAFETY: as the caller says.
        number = number << 8 | usize::from(unsafe { ptr::read_volatile(place.add(at)) });
        at += 1;
    }
    number
}

/// Whether the command line is one of those for which this is done.
///
/// # Safety
/// The arguments must be the kernel's.
unsafe fn is_quick(argc: c_int, argv: Words) -> bool {
    // SAFETY: there are `argc` strings.
    unsafe {
        if argc < 2 {
            return false;
        }
        let own = ptr::read_volatile(argv).cast::<u8>();
        let (mut name, mut at) = (own, own);
        while ptr::read_volatile(at) != 0 {
            if ptr::read_volatile(at) == b'/' {
                name = at.add(1);
            }
            at = at.add(1);
        }
        let word = ptr::read_volatile(argv.add(1)).cast();
        is_same(name, NAMES[0]) || is_same(name, NAMES[1]) || is_same(word, OCI) || is_same(word, RUN)
    }
}

/// Whether the program has more rights than who executes it.
///
/// # Safety
/// `aux` must be the kernel's.
unsafe fn is_privileged(mut aux: *const usize) -> bool {
    // SAFETY: the vector ends with an entry of kind 0.
    unsafe {
        loop {
            match ptr::read_volatile(aux) {
                0 => return false,
                AT_SECURE => return ptr::read_volatile(aux.add(1)) != 0,
                _ => aux = aux.add(2),
            }
        }
    }
}

/// Whether a string is this one, which has its end with it. Byte by byte: comparing is one of the functions that are not
/// chosen yet.
///
/// # Safety
/// `text` must be a string.
unsafe fn is_same(text: *const u8, wanted: &[u8]) -> bool {
    let mut at = 0;
    while at < wanted.len() {
        // SAFETY: no byte after one that is different, as the end would be, is looked at.
        if unsafe { ptr::read_volatile(text.add(at)) } != wanted[at] {
            return false;
        }
        at += 1;
    }
    true
}
