;; Says hello and repeats its arguments, through three calls of WASI 0.1. Text, so that it needs no compiler.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 16)
  (data (i32.const 32) "Hello from Wasm")
  (data (i32.const 48) ": ")
  (data (i32.const 50) "\n")

  ;; Prints `length` bytes at `start`.
  (func $print (param $start i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $start))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  ;; Prints the string at `start`, which ends with a zero byte.
  (func $print-string (param $start i32)
    (local $end i32)
    (local.set $end (local.get $start))
    (loop $next
      (if (i32.load8_u (local.get $end))
        (then (local.set $end (i32.add (local.get $end) (i32.const 1))) (br $next))))
    (call $print (local.get $start) (i32.sub (local.get $end) (local.get $start))))

  (func (export "_start")
    (local $count i32) (local $index i32)
    (call $print (i32.const 32) (i32.const 15))
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (local.set $count (i32.load (i32.const 16)))
    ;; Pointers at 64 KiB, strings at 512 KiB. The first is the program's own name.
    (drop (call $args_get (i32.const 65536) (i32.const 524288)))
    (local.set $index (i32.const 1))
    (loop $each
      (if (i32.lt_u (local.get $index) (local.get $count))
        (then
          ;; ": " before the first argument, " " before the others.
          (if (i32.eq (local.get $index) (i32.const 1))
            (then (call $print (i32.const 48) (i32.const 2)))
            (else (call $print (i32.const 49) (i32.const 1))))
          (call $print-string
            (i32.load (i32.add (i32.const 65536) (i32.mul (local.get $index) (i32.const 4)))))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br $each))))
    (call $print (i32.const 50) (i32.const 1))))
