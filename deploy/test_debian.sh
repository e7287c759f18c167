#!/usr/bin/env bash
# Test `git clone` and `make demo` on a fresh Debian with only python3.11, python3-venv, make, git and ca-certificates.
# Each step must end with exit code 0, and the demo must print a report. The demo runs twice, and then twice again in a new
# venv while every core is busy. Prints the CPU seconds of pip, of the kernels and of the demo. Needs root and a Debian
# mirror; takes some minutes. DEBIAN_ROOT names an existing root; TESTS=1 also runs `make test` in it.
set -euo pipefail
cd "$(dirname "$0")/.."
area=$(mktemp -d /var/tmp/replay-debian-XXXXXX)
root=${DEBIAN_ROOT:-$area/root}
busy=()
ended() {
    [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2>/dev/null || true
    for place in proc dev/shm; do ! mountpoint -q "$root/$place" || umount "$root/$place"; done
    rm -rf "$area"
}
trap ended EXIT

if [ -z "${DEBIAN_ROOT:-}" ]; then
    packages=python3.11,python3,python3-venv,make,git,ca-certificates
    debootstrap --variant=minbase --include=$packages bookworm "$root" >"$area/log" || { tail "$area/log"; exit 1; }
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"
[ -z "${PIP_CERT:-}" ] || install -D "$PIP_CERT" "$root$PIP_CERT"
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm" && mount -t tmpfs tmpfs "$root/dev/shm"
rm -rf "$root/source.git" "$root/root/replay" "$root/root/.cache"
git clone -q --bare . "$root/source.git"

settings() { env | grep -E '^(PIP_|https?_proxy=|HTTPS?_PROXY=|SSL_)' | grep -v '^PIP_FIND_LINKS' || true; }
mapfile -t passed < <(settings)
inside() {
    chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root "${passed[@]}" sh -c "cd /root && $1"
}
succeeded=0 failed=0
# step WORDS COMMAND: run COMMAND in the root, and print its exit code, its CPU seconds and its time after WORDS.
step() {
    local code=0 begun=$SECONDS
    TIMEFORMAT='%U %S'
    { time inside "$2" >"$area/out" 2>"$area/errors" || code=$?; } 2>"$area/time"
    cpu=$(tail -n 1 "$area/time" | awk '{printf "%.0f", $1 + $2}')
    echo "$1: exit code $code, $cpu CPU s, $((SECONDS - begun)) s"
    [ "$code" -ne 0 ] || succeeded=$((succeeded + 1))
    [ "$code" -eq 0 ] || { failed=$((failed + 1)); tail -n 20 "$area/out" "$area/errors"; }
}
demo_cpu() {
    step "$1, pip" 'cd replay && make .venv/.runs'
    step "$1, the first demo" 'cd replay && make demo'
    first=$cpu
    grep -m 1 -E '(VALID|SUSPECT|INVALID|FAILED)' "$area/out" || { echo "no report"; failed=$((failed + 1)); }
    step "$1, the second demo" 'cd replay && make demo'
    echo "$1, kernels: $((first - cpu)) CPU s"
}

step 'git clone' 'git clone -q /source.git replay'
demo_cpu 'fresh'
[ -z "${TESTS:-}" ] || step 'make test' 'cd replay && make test'
rm -rf "$root/root/replay/.venv" "$root/root/.cache"
for _ in $(seq "$(nproc)"); do
    timeout 1800 sh -c 'while :; do :; done' &
    busy+=($!)
done
demo_cpu 'every core busy'
echo "$succeeded passed, $failed failed"
[ "$failed" -eq 0 ]
