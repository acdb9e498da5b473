#!/usr/bin/env bash
# Builds the release, target/release/greentic-worker, optimised by what turns were seen to run: release.profdata, which
# `./dev profile` makes; docs/performance.md tells what it brings.
#
#   scripts/release.sh [option of cargo build]...
set -euo pipefail
cd "$(dirname "$0")/.."
# By `--config`, since a user's own RUSTFLAGS should still win, and a path may hold spaces. What has changed since the
# profile was made is optimised as without one, which is nothing to warn of.
exec cargo build --locked --release --bin greentic-worker \
    --config "build.rustflags = ['''-Cprofile-use=$PWD/release.profdata''', '-Cllvm-args=-no-pgo-warn-mismatch']" "$@"
