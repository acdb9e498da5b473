;; world: export greentic:component/node@0.6.0;
;; Goes too far, in the way that the operation names: `loop`, `memory`, `recurse`, `output`, `trap`; `deep` answers with
;; arrays in arrays. `hoard` fills all the memory that it gets, and keeps it.
(func (export "greentic:component/node@0.6.0#invoke") (param $in i32) (result i32)
  (local $letter i32)
  (local $at i32)
  (local.set $letter (call $letter (local.get $in)))
  (if (i32.eq (local.get $letter) (i32.const 0x6c)) (then (loop $forever (br $forever)))) ;; l
  (if (i32.eq (local.get $letter) (i32.const 0x68)) ;; h
    (then
      (loop $more
        (local.set $at (i32.mul (memory.size) (i32.const 65536)))
        (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
          (then
            (memory.fill (local.get $at) (i32.const 1) (i32.const 1048576))
            (br $more))))
      (loop $keep (br $keep))))
  (if (i32.eq (local.get $letter) (i32.const 0x6d)) ;; m
    (then (loop $more
      (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
      (br $more))))
  (if (i32.eq (local.get $letter) (i32.const 0x72)) (then (return (call $recurse (i32.const 0))))) ;; r
  (if (i32.eq (local.get $letter) (i32.const 0x6f)) ;; o
    (then
      (drop (memory.grow (i32.const 100)))
      (return (call $answer (i32.const 0) (i32.mul (i32.const 65536) (i32.const 100))))))
  (if (i32.eq (local.get $letter) (i32.const 0x64)) ;; d
    (then
      (memory.fill (i32.const 4096) (i32.const 0x81) (i32.const 100))
      (return (call $answer (i32.const 4096) (i32.const 101)))))
  (unreachable))
(func $recurse (param $n i32) (result i32)
  (i32.add (call $recurse (i32.add (local.get $n) (i32.const 1))) (local.get $n)))
