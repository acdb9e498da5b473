# Finding what is needed, and installing what is missing where the system has a package manager.

RUST_NEEDED=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

have() {
    type -P "$1" >/dev/null
}

need_rust() {
    have cargo || fail "The Rust toolchain is missing." \
        "Install it as https://rustup.rs says (Rust $RUST_NEEDED or newer), then run this again."
    local found
    found=$(cargo --version | cut -d ' ' -f 2) || fail "cargo is here, but has no toolchain." "rustup default stable"
    # Whichever sorts first is the older one.
    if [ "$(printf '%s\n' "$RUST_NEEDED.0" "$found" | sort -t . -k 1,1n -k 2,2n | head -n 1)" != "$RUST_NEEDED.0" ]; then
        fail "Rust $found is too old: $RUST_NEEDED or newer is needed." "rustup update stable"
    fi
}

need_compiler() {
    have cc && return
    note "no C compiler here; some of the libraries need one"
    install_package build-essential "" || fail "The C compiler is missing, and could not be installed." \
        "Debian, Ubuntu: sudo apt install build-essential. macOS: xcode-select --install. Then run this again."
}

# Installs one package under its name for apt or brew; an empty name means that there is none. False if it cannot be.
install_package() { # apt-name brew-name
    if [ -n "$1" ] && have apt-get; then
        as_root apt-get update -qq >/dev/null 2>&1 || true
        note "installing $1 (apt)"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >"$(install_log)" 2>&1
    elif [ -n "$2" ] && have brew; then
        note "installing $2 (brew)"
        brew install --quiet "$2" >"$(install_log)" 2>&1
    else
        return 1
    fi
}

install_log() {
    mkdir -p "$LOGS"
    echo "$LOGS/install.log"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        return 1
    fi
}

docker_works() {
    have docker && docker info >/dev/null 2>&1
}

# A server's program: found or installed. False if neither worked.
find_server() { # nats-server|redis-server
    have "$1" && return
    case $1 in
    nats-server) install_package nats-server nats-server ;;
    redis-server) install_package redis-server redis ;;
    esac
    have "$1"
}

need_servers() {
    local program
    for program in nats-server redis-server; do
        find_server "$program" || fail "$program is needed for this, and could not be installed."
    done
}

# What `./dev test` needs is decided by the tests; here what is missing is got.
find_test_servers() {
    [ "${IT_SERVERS:-}" = external ] && return
    local program
    for program in nats-server redis-server; do
        find_server "$program" || note "$program is not here and could not be installed: some tests will need it"
    done
    if [ "${IT_SERVERS:-}" != native ] && docker_works; then
        title "Images for the tests"
        scripts/images.sh || note "without images the tests take the native servers"
    fi
}
