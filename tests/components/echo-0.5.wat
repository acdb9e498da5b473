;; world: import greentic:component/control@0.5.0; export greentic:component/node@0.5.0;
;; Answers with its input.
(import "greentic:component/control@0.5.0" "should-cancel" (func $should_cancel (result i32)))
(import "greentic:component/control@0.5.0" "yield-now" (func $yield_now))
(func (export "greentic:component/node@0.5.0#invoke") (param $in i32) (result i32)
  (call $yield_now)
  (if (call $should_cancel) (then (unreachable)))
  (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
  (i32.store (i32.const 1032) (i32.load offset=264 (local.get $in)))
  (i32.store (i32.const 1036) (i32.load offset=268 (local.get $in)))
  (i32.const 1024))
