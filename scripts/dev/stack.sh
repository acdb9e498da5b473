# NATS, Redis and the workers of `./dev up`.

nats_url() {
    echo "nats://127.0.0.1:$(port_of nats)"
}

redis_url() {
    echo "redis://127.0.0.1:$(port_of redis)"
}

is_up() { # name
    pid_of "$1" >/dev/null || [ -n "$(container_of "$1")" ]
}

container_of() { # name: the id of its running container, if it is one
    [ -s "$STATE/$1.container" ] || return 0
    docker ps --quiet --no-trunc --filter "id=$(cat "$STATE/$1.container")" 2>/dev/null
}

start_servers() {
    start_server nats nats-server 4222
    start_server redis redis-server 6379
}

# Native, else in a container.
start_server() { # name program usual-port
    if is_up "$1"; then
        note "$1 runs already, on port $(port_of "$1")"
        return
    fi
    choose_port "$1" "$3"
    mkdir -p "$STATE/data/$1"
    local how=native
    if find_server "$2"; then
        "run_$1"
    elif docker_works; then
        how="in a container"
        "contain_$1"
    else
        fail "$2 is missing, could not be installed, and no Docker engine answers." \
            "Install $2 (https://$1.io says how) or start Docker, then: ./dev up" \
            "$LOGS/install.log"
    fi
    wait_until "$1" 15 "is_ready_$1" ||
        fail "$1 does not come up." "If its data is broken: ./dev down --wipe. Else its log says why." "$LOGS/$1.log"
    note "$1 is ready on port $(port_of "$1"), $how"
}

run_nats() {
    start nats "$(type -P nats-server)" --addr 127.0.0.1 --port "$(port_of nats)" --jetstream --store_dir "$STATE/data/nats"
}

run_redis() {
    start redis "$(type -P redis-server)" --bind 127.0.0.1 --port "$(port_of redis)" --dir "$STATE/data/redis" \
        --appendonly yes --appendfsync everysec --save "" --maxmemory-policy noeviction
}

contain_nats() {
    contain nats 4222 "$(image_of nats)" nats-server --jetstream --store_dir /data
}

contain_redis() {
    contain redis 6379 "$(image_of redis)" redis-server --protected-mode no \
        --appendonly yes --appendfsync everysec --save "" --maxmemory-policy noeviction
}

# compose.yaml is where images are named.
image_of() { # name
    sed -n "s/^ *image: \($1:.*\)/\1/p" compose.yaml
}

contain() { # name inner-port image command...
    local name=$1 inner=$2
    shift 2
    docker run --detach --publish "127.0.0.1:$(port_of "$name"):$inner" --volume "$(volume_of "$name"):/data" \
        --label greentic-dev="$name" "$@" >"$STATE/$name.container" 2>>"$LOGS/$name.log" ||
        fail "The container of $name cannot be started." "" "$LOGS/$name.log"
}

# A volume, not a folder: what a container writes to a folder belongs to its user, not to ours.
volume_of() { # name
    echo "greentic-dev-$1-$(pwd | cksum | cut -d ' ' -f 1)"
}

is_ready_nats() {
    # The server greets first; with JetStream running, the greeting says so.
    (
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of nats)" && IFS= read -r -t 2 line <&3
        case $line in INFO*'"jetstream":true'*) exit 0 ;; *) exit 1 ;; esac
    ) 2>/dev/null
}

is_ready_redis() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$(port_of redis)" && printf 'PING\r\n' >&3 && IFS= read -r -t 2 line <&3
        case $line in +PONG*) exit 0 ;; *) exit 1 ;; esac
    ) 2>/dev/null
}

stop_server() { # name
    local id
    id=$(container_of "$1")
    if [ -n "$id" ]; then
        docker rm --force "$id" >/dev/null
        note "$1 stopped (its container is removed)"
    fi
    rm -f "$STATE/$1.container"
    stop "$1" 10
}

wipe() {
    rm -rf "$STATE"
    if docker_works; then
        docker volume rm --force "$(volume_of nats)" "$(volume_of redis)" >/dev/null 2>&1 || true
    fi
    note "the data is gone, too"
}

start_workers() {
    [ -x "$WORKER" ] || fail "There is no $WORKER." "Build it: ./dev build"
    local name usual=8081
    for name in $WORKERS; do
        # A worker of an older build is replaced; it drains first.
        if is_up "$name" && [ "$WORKER" -nt "$STATE/$name.pid" ]; then stop "$name" 35; fi
        if is_up "$name"; then
            note "$name runs already"
        else
            start_worker "$name" "$usual"
        fi
        usual=$((usual + 1))
    done
}

start_worker() { # name usual-port
    choose_port "$1" "$2"
    start "$1" "$WORKER" serve --config config/dev.yaml \
        --nats-url "$(nats_url)" --redis-url "$(redis_url)" --http-listen "127.0.0.1:$(port_of "$1")"
    wait_until "$1" 20 is_ready_worker "$1" ||
        fail "$1 does not get ready." "Its log says why: $LOGS/$1.log" "$LOGS/$1.log"
    note "$1 is ready (pid $(pid_of "$1"), http://127.0.0.1:$(port_of "$1")/metrics)"
}

is_ready_worker() { # name
    case $(http_get "$(port_of "$1")" /readyz | head -n 1) in *" 200"*) ;; *) return 1 ;; esac
}

status() {
    local name state where
    for name in nats redis $WORKERS; do
        state=stopped where=
        if is_up "$name"; then
            state=running where="127.0.0.1:$(port_of "$name")"
            case $name in worker-*) is_ready_worker "$name" || state="not ready" ;; esac
        fi
        printf '   %-10s %-10s %-18s %s\n' "$name" "$state" "$where" "$LOGS/$name.log"
    done
}
