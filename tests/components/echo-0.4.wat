;; world: import greentic:component/control@0.4.0; export greentic:component/node@0.4.0;
;; Answers with its input; operation `error`: with an error that has details.
(import "greentic:component/control@0.4.0" "should-cancel" (func $should_cancel (result i32)))
(import "greentic:component/control@0.4.0" "yield-now" (func $yield_now))
(func (export "greentic:component/node@0.4.0#invoke") (param $in i32) (result i32)
  (local $out i32)
  (call $yield_now)
  (if (call $should_cancel) (then (unreachable)))
  (if (i32.eq (call $letter (i32.add (local.get $in) (i32.const 112))) (i32.const 0x65)) ;; e
    (then
      (local.set $out (call $fail (i32.const 4096) (i32.const 3)))
      (i32.store8 offset=16 (i32.const 1032) (i32.const 1))
      (i32.store8 offset=24 (i32.const 1032) (i32.const 1))
      (i64.store offset=32 (i32.const 1032) (i64.const 250))
      (i32.store8 offset=40 (i32.const 1032) (i32.const 1))
      (i32.store offset=44 (i32.const 1032) (i32.const 4100))
      (i32.store offset=48 (i32.const 1032) (i32.const 7))
      (return (local.get $out))))
  (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
  (i32.store (i32.const 1032) (i32.load offset=120 (local.get $in)))
  (i32.store (i32.const 1036) (i32.load offset=124 (local.get $in)))
  (i32.const 1024))
(data (i32.const 4096) "bad\00{\22a\22:1}")
