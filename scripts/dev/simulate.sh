# The deterministic simulation, and what shows that it can fail. docs/exactly-once.md says what both are about.

MUTATIONS=tests/simulation/mutations

# Runs seeds: `--seeds N` of them, from `--seed N` on.
simulate() {
    local seeds=10000 seed=0
    while [ $# -gt 0 ]; do
        case $1 in
        --seeds) seeds=${2:?"--seeds takes a number"} ;;
        --seed) seed=${2:?"--seed takes a number"} ;;
        *) fail "simulate has no '$1'." "./dev simulate [--seeds N] [--seed FIRST]" ;;
        esac
        shift 2
    done
    need_rust
    need_compiler
    title "Simulating $seeds seeds from $seed on"
    RUST_BACKTRACE=0 SIM_SEEDS=$seeds SIM_SEED=$seed \
        cargo test --locked --profile "$(simulation_profile "$seeds")" --test simulation -- --nocapture chosen_seeds_hold
}

# Optimising takes minutes, and then makes each run many times as fast.
simulation_profile() { # seeds
    if [ "$1" -gt 20000 ]; then echo simulation; else echo dev; fi
}

# Breaks the worker on purpose, each time in another way, and tells which seed notices. `./dev mutants [--seeds N] [name]...`
mutants() {
    local seeds=1000 names="" tree patch caught=0 missed=0
    if [ "${1:-}" = --seeds ]; then
        seeds=${2:?"--seeds takes a number"}
        shift 2
    fi
    need_rust
    need_compiler
    names=${*:-$(cd "$MUTATIONS" && echo *.patch)}
    title "Breaking the worker, up to $seeds seeds each"
    tree=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$tree'" EXIT
    for patch in $names; do
        mutant "$tree/worker" "${patch%.patch}" "$seeds" && caught=$((caught + 1)) || missed=$((missed + 1))
    done
    note "$caught caught, $missed not"
}

# Runs one; false if no seed notices.
mutant() { # tree name seeds
    local log found wrong
    rm -rf "$1" && mkdir "$1"
    git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - | tar -xf - -C "$1"
    patch -s -p1 -d "$1" <"$MUTATIONS/$2.patch" || fail "$2 does not apply any more." "Make it anew: $MUTATIONS/$2.patch"
    log=$1/log
    # A build folder of its own: cargo would take a mutant for the worker, whose paths inside the tree are the same.
    if CARGO_TARGET_DIR=$PWD/target/mutants RUST_BACKTRACE=0 SIM_SEEDS=$3 SIM_SEED=0 \
        cargo test --quiet --locked --manifest-path "$1/Cargo.toml" --test simulation -- chosen_seeds_hold >"$log" 2>&1; then
        note "$2: NOT caught by $3 seeds"
        return 1
    fi
    found=$(sed -n 's/^seed \([0-9]*\) is wrong:$/\1/p' "$log" | sort -n | head -n 1)
    if [ -z "$found" ]; then
        fail "$2 does not build, or the simulation broke." "" "$log"
    fi
    wrong=$(sed -n "/^seed $found is wrong:/{n;s/^ *//;p;q;}" "$log" | cut -c 1-150)
    note "$2: seed $found: $wrong"
}
