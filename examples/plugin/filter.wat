;; The plugin of this example: as a compiler would make it of
;;
;;   package acme:filter;
;;   interface log { write: func(text: string); }
;;   world filter {
;;       import acme:filter/log;
;;       record person { name: string, age: option<u8> }
;;       export greet: func(who: person) -> result<string, string>;   // "no name" where there is none
;;       export reverse: func(bytes: list<u8>) -> list<u8>;
;;       export spin: func();                                         // for ever
;;       export crash: func();
;;   }
(component
    (import "acme:filter/log" (instance $log (export "write" (func (param "text" string)))))
    (core module $memory
        (memory (export "memory") 1)
        (global $next (mut i32) (i32.const 1024))
        ;; A guest of one call needs no better one.
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32) (local $end i32)
            (local.set $at (global.get $next))
            (local.set $end (i32.add (local.get $at) (local.get 3)))
            (drop (memory.grow (i32.shr_u
                (i32.sub (local.get $end) (i32.and (local.get $at) (i32.const -65536))) (i32.const 16))))
            (global.set $next (local.get $end))
            (local.get $at)))
    (core instance $m (instantiate $memory))
    (core func $write (canon lower (func $log "write") (memory (core memory $m "memory"))))
    (core module $code
        (import "m" "memory" (memory 1))
        (import "log" "write" (func $write (param i32 i32)))
        (data (i32.const 16) "no name")
        (func $give (param $at i32) (param $length i32) (result i32)
            (i32.store (i32.const 8) (local.get $at))
            (i32.store (i32.const 12) (local.get $length))
            (i32.const 8))
        (func (export "greet") (param $name i32) (param $length i32) (param $known i32) (param $age i32) (result i32)
            (call $write (local.get $name) (local.get $length))
            (i32.store8 (i32.const 4) (i32.eqz (local.get $length)))
            (if (i32.eqz (local.get $length))
                (then (drop (call $give (i32.const 16) (i32.const 7))))
                (else (drop (call $give (local.get $name) (local.get $length)))))
            (i32.const 4))
        (func (export "reverse") (param $at i32) (param $length i32) (result i32)
            (local $low i32) (local $high i32) (local $byte i32)
            (local.set $low (local.get $at))
            (local.set $high (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 1)))
            (block $done (loop $more
                (br_if $done (i32.ge_s (local.get $low) (local.get $high)))
                (local.set $byte (i32.load8_u (local.get $low)))
                (i32.store8 (local.get $low) (i32.load8_u (local.get $high)))
                (i32.store8 (local.get $high) (local.get $byte))
                (local.set $low (i32.add (local.get $low) (i32.const 1)))
                (local.set $high (i32.sub (local.get $high) (i32.const 1)))
                (br $more)))
            (call $give (local.get $at) (local.get $length)))
        (func (export "spin") (loop $again (br $again)))
        (func $deep (unreachable))
        (func (export "crash") (call $deep)))
    (core instance $h (export "write" (func $write)))
    (core instance $c (instantiate $code (with "m" (instance $m)) (with "log" (instance $h))))
    (type $person (record (field "name" string) (field "age" (option u8))))
    (export $p "person" (type $person))
    (func (export "greet") (param "who" $p) (result (result string (error string)))
        (canon lift (core func $c "greet") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
    (func (export "reverse") (param "bytes" (list u8)) (result (list u8))
        (canon lift (core func $c "reverse") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
    (func (export "spin") (canon lift (core func $c "spin")))
    (func (export "crash") (canon lift (core func $c "crash"))))
