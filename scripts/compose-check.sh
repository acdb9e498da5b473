#!/usr/bin/env bash
# Brings compose.yaml up with two workers, waits until all are healthy, lets one answer, and takes all of it down again.
#
#   scripts/compose-check.sh EXECUTABLE     a worker that was built outside, e.g. target/debug/greentic-worker
#
# The worker's image is made around the executable (scripts/images.sh worker). Ports and data are this check's own.
set -euo pipefail
cd "$(dirname "$0")/.."
worker=${1:?the executable to check with}

export COMPOSE_PROJECT_NAME=greentic-check NATS_PORT=${NATS_PORT:-14222}
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose=docker-compose; fi

fail() {
    echo "compose-check: $*" >&2
    $compose ps >&2 || true
    $compose logs --tail=30 >&2 || true
    exit 1
}

take_down() {
    $compose down --volumes --timeout 30 >/dev/null 2>&1 || echo "compose-check: the stack was not taken down" >&2
}

health() {
    # Word splitting gives one argument a container.
    # shellcheck disable=SC2046
    docker inspect --format '{{ .State.Health.Status }}' $($compose ps -q)
}

all_healthy() {
    [ "$(health | grep -c '^healthy$')" = 4 ]
}

$compose config >/dev/null || fail "compose.yaml is not valid"
scripts/images.sh
scripts/images.sh worker "$worker"
trap take_down EXIT
$compose up -d --no-build --scale worker=2 || fail "it does not come up"
for _ in $(seq 60); do
    if all_healthy; then break; fi
    sleep 1
done
all_healthy || fail "after a minute, not everything is healthy: $(health | tr '\n' ' ')"
echo "compose-check: NATS, Redis and two workers are healthy"

answer=$(printf 'hello\n' | timeout 30 "$worker" chat --nats "nats://127.0.0.1:$NATS_PORT" --tenant dev.local \
    --user "check-$$" --script -) || fail "the conversation broke off"
[ -n "$answer" ] || fail "no worker answered"
printf '%s\n' "$answer" | sed 's/^/   /'
echo "compose-check: answered"
