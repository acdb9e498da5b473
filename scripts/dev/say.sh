# How the scripts speak. Colours only for a person's terminal.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$(printf '\033[1m') RED=$(printf '\033[31m') PLAIN=$(printf '\033[0m')
else
    BOLD='' RED='' PLAIN=''
fi

title() {
    printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"
}

note() {
    printf '   %s\n' "$*"
}

# What went wrong, what to do about it, and the end of a log that tells more.
fail() { # problem [remedy] [log file]
    printf '\n%s%s%s\n' "$RED" "$1" "$PLAIN" >&2
    if [ -n "${3:-}" ] && [ -s "$3" ]; then
        printf '%s ends with:\n' "$3" >&2
        tail -n 20 "$3" | sed 's/^/   | /' >&2
    fi
    if [ -n "${2:-}" ]; then printf '%s\n' "$2" >&2; fi
    exit 1
}
