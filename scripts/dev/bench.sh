# What is measured: speed on real servers, the parts of a turn, and what a turn costs; and the profile by which the release
# is optimised. docs/performance.md is about them.

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
    need_servers
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

# Runs a worker that counts what it runs, under the loads of the bench and several kinds of flows, and keeps the counts for
# the release. The bench's own figures of such a worker mean nothing.
profile() {
    need_rust
    need_compiler
    need_servers
    local counts=$PWD/target/profile/counts merge
    merge=$(llvm_profdata)
    title "Building a worker that counts what it runs"
    note "It takes ten to twenty minutes on two cores, and so does what talks to it."
    cargo build --locked --release --bin greentic-worker --target-dir target/profile \
        --config "build.rustflags = ['''-Cprofile-generate=$counts''']"
    # What the build itself ran has been counted, too.
    rm -rf "$counts"
    title "Talking to it"
    train --only closed --only open --only backlog
    train --curve nodes --curve replies --curve body --curve tenants
    "$merge" merge -sparse "$counts" -o release.profdata
    note "release.profdata is made; commit it, and hold ./dev bench before and after."
}

train() { # loads of the bench
    cargo bench --locked --quiet --bench wire -- run --quick --rounds 1 \
        --worker target/profile/release/greentic-worker "$@"
}

# The program that merges counts, of the compiler's own LLVM: of rustup's component, or the system's.
llvm_profdata() {
    local major found
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for found in "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata; do
        if [ -x "$found" ]; then
            echo "$found"
            return
        fi
    done
    have "llvm-profdata-$major" || install_package "llvm-$major" "" >&2 ||
        fail "llvm-profdata of LLVM $major is needed for this, and could not be installed." "rustup component add llvm-tools"
    type -P "llvm-profdata-$major"
}
