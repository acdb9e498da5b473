# Processes in the background, by pid file. A pid counts only if the program of that pid is still ours.

pid_of() { # name: its pid, if it runs
    local pid
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
    case $(command_of "$pid") in
    *"$(cat "$STATE/$1.program")"*) echo "$pid" ;;
    *) return 1 ;;
    esac
}

# The command line of a process; empty if there is none, and for a zombie.
command_of() { # pid
    if [ -d /proc/self ]; then
        { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true
    else
        ps -o command= -p "$1" 2>/dev/null || true
    fi
}

start() { # name program [argument]...
    local name=$1
    shift
    basename "$1" >"$STATE/$name.program"
    # A process group of its own: a Ctrl-C in this terminal is not meant for it.
    set -m
    nohup "$@" </dev/null >>"$LOGS/$name.log" 2>&1 &
    set +m
    echo "$!" >"$STATE/$name.pid"
    # Or this shell would report its end.
    disown
}

stop() { # name seconds
    local pid tries=$(($2 * 10))
    if pid=$(pid_of "$1"); then
        kill -TERM "$pid"
        while pid_of "$1" >/dev/null && [ "$tries" -gt 0 ]; do
            sleep 0.1
            tries=$((tries - 1))
        done
        if pid_of "$1" >/dev/null; then
            kill -9 "$pid"
            note "$1 did not stop in $2 s and was killed"
        else
            note "$1 stopped"
        fi
    fi
    rm -f "$STATE/$1.pid" "$STATE/$1.program"
}

# Asks again and again until the command succeeds; false if it does not in time, or if the named process has ended.
wait_until() { # name seconds command [argument]...
    local name=$1 tries=$(($2 * 10))
    shift 2
    until "$@"; do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ] || has_ended "$name"; then return 1; fi
        sleep 0.1
    done
}

# Whether what was started has ended; a zombie has, even if nobody reaps it.
has_ended() { # name
    local pid
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
    ! kill -0 "$pid" 2>/dev/null || grep -qs '^State:.*Z' "/proc/$pid/status"
}

is_listening() { # port
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The port that this service had, or the first free one from its usual one on; kept in a file.
choose_port() { # name usual-port
    local port=$2 file=$STATE/$1.port
    if [ -s "$file" ]; then port=$(cat "$file"); fi
    while is_listening "$port"; do port=$((port + 1)); done
    echo "$port" >"$file"
}

port_of() {
    cat "$STATE/$1.port"
}

# One line of HTTP is all that is needed: no curl.
http_get() { # port path
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
        cat <&3
    ) 2>/dev/null
}
