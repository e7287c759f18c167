#!/usr/bin/env bash
# Build the root of deploy/Containerfile from Debian's packages, without a registry, and run the demo in it as its user,
# who can write only to /work and /tmp. No kernel may be compiled by that run. Needs root; takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
area=$(mktemp -d /var/tmp/replay-image-XXXXXX)
root=$area/root
unmount() { for place in proc dev/shm; do mountpoint -q "$root/$place" && umount "$root/$place"; done; rm -rf "$area"; }
trap unmount EXIT

packages=$(sed -n 's/.*--no-install-recommends \(.*\) \\$/\1/p' deploy/Containerfile | tr ' ' ',')
if command -v mmdebstrap >/dev/null; then
    mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$root"
else
    debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$area/log" || { tail "$area/log"; exit 1; }
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"
[ -z "${PIP_CERT:-}" ] || install -D "$PIP_CERT" "$root$PIP_CERT"
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm" && mount -t tmpfs tmpfs "$root/dev/shm"
mkdir "$root/src"
git ls-files -z | xargs -0 cp --parents -t "$root/src"
[ ! -d dist ] || cp -r dist "$root/src/"

settings() { env | grep -E '^(PIP_|https?_proxy=|HTTPS?_PROXY=|SSL_)' | grep -v '^PIP_FIND_LINKS' || true; }
mapfile -t passed < <(settings)
begun=$SECONDS
chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root "${passed[@]}" sh /src/deploy/install.sh /src
rm -rf "$root/src"
echo "installed and warm after $((SECONDS - begun)) s: $(du -sm "$root" | cut -f1) MB, of which /opt takes $(du -sm "$root/opt" | cut -f1) MB"

inside() {
    chroot --userspec=10001:10001 "$root" /usr/bin/env -i PATH=/opt/replay/bin:/usr/bin:/bin \
        REPLAY_CACHE=/opt/replay-cache HOME=/nowhere LANG=C sh -c "cd /work && $1"
}
inside 'replay --help' | grep -q 'Commands:'
inside 'replay doctor' | tee "$area/doctor" | grep kernels
grep -Eq 'ok +kernels' "$area/doctor"
inside 'replay demo --plain -o demo' >"$area/out" 2>"$area/errors" || { tail -n 20 "$area/out" "$area/errors"; exit 1; }
if grep -i compil "$area/errors"; then echo "kernels were compiled in the image"; exit 1; fi
inside 'replay report demo' | head -n 12
echo "1 passed, 0 failed"
