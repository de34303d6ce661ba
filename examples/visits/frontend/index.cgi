#!/bin/sh
# Counts a visit in redis and says so, with what the ConfigMap and the Secret brought.

# One command of redis' protocol from its words.
command() {
    printf '*%d\r\n' $#
    for word in "$@"; do printf '$%d\r\n%s\r\n' ${#word} "$word"; done
}

answer=$({
    [ -z "$REDIS_PASSWORD" ] || command AUTH "$REDIS_PASSWORD"
    command INCR visits
    command QUIT
} | nc -w 3 "${REDIS_HOST:-redis}" "${VISITS_REDIS_PORT:-6379}" 2>&1)
visits=$(printf '%s\n' "$answer" | tr -d '\r' | sed -n 's/^:\([0-9]*\)$/\1/p')

if [ -z "$visits" ]; then
    printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n'
    printf 'redis at %s does not count: %s\n' "${REDIS_HOST:-redis}" "$answer"
    exit 0
fi

printf 'Content-Type: text/plain\r\nCache-Control: no-store\r\n\r\n'
printf 'visits: %s from %s\n' "$visits" "${POD_NAME:-$(hostname)}"
printf 'greeting: %s\n' "$GREETING"
printf 'password: %s characters\n' "${#REDIS_PASSWORD}"
[ ! -r /config/motd ] || printf 'motd: %s\n' "$(cat /config/motd)"
