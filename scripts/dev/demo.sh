# The scripted conversation of `./dev up`: ask on one worker, kill it, be answered by the other.

# Says one line as a user and prints what comes back. A line is a run of its own: a provider keeps nothing between two.
say() { # user text
    printf '%s\n' "$2" | "$WORKER" chat --nats "$(nats_url)" --tenant "$TENANT" --user "$1" --conversation "$1" --script -
}

demo() {
    # A user of its own each time, so that an earlier demo's end is not this one's beginning.
    local user before speaker other
    user="ada-$(date +%s)"
    before=$(turns worker-1)
    converse "$user" "hello"
    speaker=worker-2 other=worker-1
    if [ "$(turns worker-1)" != "$before" ]; then speaker=worker-1 other=worker-2; fi

    note "$speaker has asked. Killing it now: SIGKILL, nothing to say goodbye with."
    kill -9 "$(pid_of "$speaker")"
    note "$other is all that is left, and has never heard of this conversation:"
    converse "$user" "Ada"
    note "The question was asked by $speaker, the answer taken by $other. Starting $speaker again."
    wait_gone "$speaker"
    start_worker "$speaker" "$(port_of "$speaker")"
}

# One line of the conversation, shown as it went; the demo fails if nothing comes back.
converse() { # user text
    local answer
    answer=$(say "$1" "$2" 2>>"$LOGS/demo.log") || fail "The conversation broke off." \
        "What the workers say: ./dev logs" "$LOGS/demo.log"
    [ -n "$answer" ] || fail "No worker answered." "What the workers say: ./dev logs" "$LOGS/worker-1.log"
    # Without the chat's own introduction.
    printf '%s\n' "$answer" | sed -e '/^-- you are/d' -e 's/^/      /'
}

# How many activities a worker has handled, by its own count.
turns() { # worker
    http_get "$(port_of "$1")" /metrics | awk '/^greentic_worker_messages/ { sum += $NF } END { print sum + 0 }'
}

wait_gone() { # name
    while is_up "$1"; do sleep 0.1; done
}
