#!/usr/bin/env bash
# Container images for a machine that can run containers but pull none: stand-ins of the public images that the tests,
# the Dockerfile and compose.yaml name, made of this machine's own programs and the libraries that those load.
#
#   scripts/images.sh             an image that is there or can be pulled is taken; a stand-in is made of any other
#   scripts/images.sh worker BIN  the worker's image around an executable that was built outside, e.g.
#                                 target/release/greentic-worker, through the Dockerfile
#   scripts/images.sh rm          removes the stand-ins
#
# A stand-in carries the label that `docker images --filter label=...` below shows, so that nobody takes it for the
# public image of that name. A machine that gets to a registry later: `scripts/images.sh rm`, then pull as ever.
set -euo pipefail
cd "$(dirname "$0")/.."

LABEL=dev.greentic.stand-in
NATS_IMAGE=${IT_NATS_IMAGE:-nats:2.12-alpine}
REDIS_IMAGE=${IT_REDIS_IMAGE:-redis:7.2-alpine}
BASE_IMAGE=debian:bookworm-slim
COPIER_IMAGE=greentic-worker-copier:local

fail() {
    echo "images: $*" >&2
    exit 1
}

program() {
    PATH=$PATH:/usr/sbin:/usr/local/sbin type -P "$1" ||
        fail "$1 is not installed here, and its image cannot be pulled; try: apt-get install $2"
}

# A file and, if it is a dynamic executable, what it loads: the same paths in the image, symbolic links followed.
add() { # root file [path in the image]
    local root=$1 file=$2 path=${3:-$2} library
    install -D -m 755 "$file" "$root$path"
    for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$root$library" ] || install -D -m 755 "$library" "$root$library"
    done
}

# The small tools that entry points and health checks use.
add_tools() { # root
    local root=$1 tool busybox
    busybox=$(program busybox busybox-static)
    add "$root" "$busybox" /bin/busybox
    for tool in sh cat cp grep install mkdir ls sleep wget; do
        ln -s busybox "$root/bin/$tool"
    done
    mkdir -p "$root/tmp" "$root/etc" "$root/data"
    chmod 1777 "$root/tmp" "$root/data"
    printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
    # Names are looked up by what the C library loads on its own; ldd does not see it.
    local nss
    for nss in /lib/*/libnss_dns.so.2 /lib/*/libnss_files.so.2; do
        if [ -e "$nss" ]; then add "$root" "$nss"; fi
    done
}

stand_in() { # image root [change of the image]...
    local image=$1 root=$2 change changes=()
    shift 2
    for change in "ENV PATH=/usr/local/bin:/usr/bin:/bin" "LABEL $LABEL=true" "$@"; do
        changes+=(--change "$change")
    done
    tar -C "$root" -c . | docker import "${changes[@]}" - "$image" >/dev/null
    echo "images: $image is a stand-in, made of this machine's programs"
}

is_stand_in() { # image
    [ "$(docker image inspect --format "{{ index .Config.Labels \"$LABEL\" }}" "$1" 2>/dev/null)" = true ]
}

have() { # image
    if docker image inspect "$1" >/dev/null 2>&1; then
        echo "images: $1 is here"
    elif timeout 120 docker pull --quiet "$1" >/dev/null 2>&1; then
        echo "images: $1 pulled"
    else
        return 1
    fi
}

make_nats() { # root
    add "$1" "$(program nats-server nats-server)" /usr/local/bin/nats-server
    add_tools "$1"
    stand_in "$NATS_IMAGE" "$1" 'CMD ["nats-server"]' "EXPOSE 4222 8222"
}

make_redis() { # root
    add "$1" "$(program redis-server redis-server)" /usr/local/bin/redis-server
    add "$1" "$(program redis-cli redis-tools)" /usr/local/bin/redis-cli
    add_tools "$1"
    stand_in "$REDIS_IMAGE" "$1" 'CMD ["redis-server"]' "EXPOSE 6379" "WORKDIR /data"
}

# What the worker's image is laid on: bash for its health check, the C library for the worker.
make_base() { # root executable
    add "$1" "$(program bash bash)" /bin/bash
    add "$1" "$2" /executable
    rm "$1/executable"
    add_tools "$1"
    stand_in "$BASE_IMAGE" "$1" 'CMD ["bash"]'
}

# What stands in for the Rust image where nothing has to be built: a shell, and certificates for TLS.
make_copier() { # root
    add_tools "$1"
    mkdir -p "$1/etc/ssl/certs"
    cat /etc/ssl/certs/ca-certificates.crt >"$1/etc/ssl/certs/ca-certificates.crt" || echo "images: no certificates here"
    stand_in "$COPIER_IMAGE" "$1"
}

in_a_folder() { # function [argument]...
    local make=$1 root
    shift
    root=$(mktemp -d)
    "$make" "$root" "$@"
    rm -rf "$root"
}

servers() {
    have "$NATS_IMAGE" || in_a_folder make_nats
    have "$REDIS_IMAGE" || in_a_folder make_redis
}

worker() { # executable
    [ -x "${1:-}" ] || fail "no executable at '${1:-}'; build it first: ./dev build"
    # A stand-in has only the libraries of the executable it was made for.
    if is_stand_in "$BASE_IMAGE" || ! have "$BASE_IMAGE"; then in_a_folder make_base "$1"; fi
    in_a_folder make_copier
    install -D -m 755 "$1" dist/greentic-worker
    local log
    log=$(docker build --tag greentic-worker:local --build-arg BUILDER_IMAGE="$COPIER_IMAGE" \
        --build-arg PREBUILT=dist/greentic-worker . 2>&1) || fail "docker build failed: $log"
    echo "images: greentic-worker:local built around $1"
}

docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it, or use native servers: IT_SERVERS=native"
case ${1:-servers} in
servers) servers ;;
worker) worker "${2:-}" ;;
rm) docker images --quiet --filter "label=$LABEL" | xargs -r docker rmi --force ;;
*) fail "unknown: $1; see the head of $0" ;;
esac
