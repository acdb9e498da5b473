# What is measured: speed on real servers, the parts of a turn, and what a turn costs. docs/performance.md is about them.

# The worker as released against a bare loop; `--micro`: the parts of a turn, with criterion.
bench() {
    need_rust
    need_compiler
    if [ "${1:-}" = --micro ]; then
        shift
        title "Building what measures it, which takes minutes the first time, then measuring"
        cargo bench --locked --quiet --bench turn --bench component -- "$@"
        return
    fi
    local program
    for program in nats-server redis-server; do
        find_server "$program" || fail "$program is needed for this, and could not be installed."
    done
    build
    # The benches' own build of the worker ends in the same place, and has what tests need in it.
    mkdir -p target/bench
    cp target/release/greentic-worker target/bench/
    title "Building what measures it, then measuring; the machine should have nothing else to do"
    cargo bench --locked --quiet --bench wire -- run "$@"
}

# Instructions and allocations of a turn, counted by valgrind and compared with the baseline. UPDATE=1 makes it anew.
cost() {
    need_rust
    need_compiler
    have valgrind || install_package valgrind "" ||
        fail "valgrind is needed for this, and could not be installed." "It runs on Linux: sudo apt install valgrind."
    title "Counting what a turn costs"
    local what=compare
    if [ -n "${UPDATE:-}" ]; then what=update; fi
    cargo test --locked --quiet --profile cost --test cost -- "$what"
}
