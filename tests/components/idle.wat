;; world:
;; Can be loaded, but there is no way in.
