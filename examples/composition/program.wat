;; A command that needs that interface, and has no idea who implements it. Ends well if 40 and 2 are 42.
(component
  (import "example:sums/sums@1.0.0" (instance $sums (export "add" (func (param "a" u32) (param "b" u32) (result u32)))))
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
  (core func $add (canon lower (func $sums "add")))
  (core module $m
    (import "sums" "add" (func $add (param i32 i32) (result i32)))
    (func (export "run") (result i32) (i32.ne (call $add (i32.const 40) (i32.const 2)) (i32.const 42))))
  (core instance $i (instantiate $m (with "sums" (instance (export "add" (func $add))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
