;; world: import greentic:http/http-client@1.0.0; import greentic:host/http-v1@1.0.0; export greentic:component/node@0.6.0;
;; Sends a GET to the URL that is its payload, and answers with the body of the answer; operation `old` does it through
;; the older interface, `twice` does it a second time.
(import "greentic:http/http-client@1.0.0" "send" (func $send (param i32 i32)))
(import "greentic:host/http-v1@1.0.0" "request" (func $request (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))

(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (local $head i32) (local $at i32) (local $len i32)
  (local.set $at (i32.load offset=124 (local.get $in)))
  (local.set $head (i32.const 1))
  (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 0x78)) (then (local.set $head (i32.const 2))))
  (local.set $at (i32.add (local.get $at) (local.get $head)))
  (local.set $len (i32.sub (i32.load offset=128 (local.get $in)) (local.get $head)))
  (if (i32.eq (call $letter (local.get $in)) (i32.const 0x6f)) ;; o
    (then
      (call $request (i32.const 4096) (i32.const 3) (local.get $at) (local.get $len)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (if (i32.load8_u (i32.const 0)) (then (return (call $fail (i32.load (i32.const 4)) (i32.load (i32.const 8))))))
      (return (call $answer (i32.load (i32.const 4)) (i32.load (i32.const 8))))))
  (i32.store (i32.const 2048) (i32.const 4096))
  (i32.store (i32.const 2052) (i32.const 3))
  (i32.store (i32.const 2056) (local.get $at))
  (i32.store (i32.const 2060) (local.get $len))
  (call $send (i32.const 2048) (i32.const 0))
  (if (i32.eq (call $letter (local.get $in)) (i32.const 0x74)) ;; t
    (then (call $send (i32.const 2048) (i32.const 0))))
  (if (i32.load8_u (i32.const 0)) (then (return (call $fail (i32.load (i32.const 4)) (i32.load (i32.const 8))))))
  (call $answer (i32.load (i32.const 20)) (i32.load (i32.const 24))))
(data (i32.const 4096) "GET")
