;; world: import greentic:state/state-store@1.0.0; export greentic:component/node@0.6.0;
;; Reads or writes as much state as it can: `read` reads 2,000 keys of 100 kB, `many` 20,000 keys of 400 bytes, `write`
;; writes the 478,379 keys of 8 bytes that 4 MiB hold. Ends with the first refusal, as its own failure; `Read`, `Many` and
;; `Write` go on as if nothing had been refused.
(import "greentic:state/state-store@1.0.0" "read" (func $read (param i32 i32)))
(import "greentic:state/state-store@1.0.0" "write" (func $write (param i32 i32)))

(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (local $letter i32) (local $greedy i32) (local $n i32) (local $last i32) (local $len i32) (local $free i32)
  (local.set $letter (i32.or (call $letter (local.get $in)) (i32.const 0x20)))
  (local.set $greedy (i32.ne (local.get $letter) (call $letter (local.get $in))))
  (drop (memory.grow (i32.const 64)))
  (memory.fill (i32.const 3145728) (i32.const 0x78) (i32.const 100000))
  (local.set $last (i32.const 2000))
  (local.set $len (i32.const 100000))
  (if (i32.eq (local.get $letter) (i32.const 0x6d)) ;; m
    (then (local.set $last (i32.const 20000)) (local.set $len (i32.const 400))))
  (if (i32.eq (local.get $letter) (i32.const 0x77)) ;; w
    (then (local.set $last (i32.const 478379)) (local.set $len (i32.const 8))))
  (i32.store (i32.const 2048) (i32.const 3145728))
  (i32.store (i32.const 2052) (local.get $len))
  (local.set $free (global.get $free))
  (loop $next
    (global.set $free (local.get $free))
    (call $name (local.get $n))
    (if (i32.eq (local.get $letter) (i32.const 0x77))
      (then
        (i32.store (i32.const 2056) (i32.const 4096))
        (i32.store (i32.const 2060) (i32.const 1))
        (call $write (i32.const 2048) (i32.const 0)))
      (else (call $read (i32.const 2048) (i32.const 0))))
    ;; An error other than `not_found`.
    (if (i32.and
          (i32.eqz (local.get $greedy))
          (i32.and
            (i32.load8_u (i32.const 0))
            (i32.ne (i32.load8_u (i32.load (i32.const 4))) (i32.const 0x6e)))) ;; n
      (then (return (call $fail (i32.load (i32.const 12)) (i32.load (i32.const 16))))))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $n) (local.get $last))))
  (call $answer (i32.const 4112) (i32.const 4)))

;; Puts a number at the beginning of the key, a letter for each of its digits.
(func $name (param $n i32)
  (local $at i32)
  (loop $digit
    (i32.store8
      (i32.add (i32.const 3145728) (local.get $at))
      (i32.add (i32.const 0x61) (i32.and (local.get $n) (i32.const 15))))
    (local.set $n (i32.shr_u (local.get $n) (i32.const 4)))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $digit (i32.lt_u (local.get $at) (i32.const 8)))))
(data (i32.const 4096) "1")
(data (i32.const 4112) "true")
