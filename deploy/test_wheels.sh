#!/usr/bin/env bash
# Install each wheel with compiled kernels from dist/ into a new venv of its CPython, print its size, and run the demo,
# which must not compile any kernel. PYTHONS names the interpreters; each needs about two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
area=$(mktemp -d /var/tmp/replay-wheels-XXXXXX)
trap 'rm -rf "$area"' EXIT
passed=0 failed=0
for python in ${PYTHONS:-python3.11 python3.12 python3.13}; do
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])' 2>/dev/null) || { echo "$python: not installed"; continue; }
    wheel=$(ls dist/replay_engine-*-"$tag"-"$tag"-*.whl 2>/dev/null) || { echo "$tag: no wheel in dist/; run make wheel"; continue; }
    venv=$area/$tag
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install -q --disable-pip-version-check -c requirements.lock "$wheel"
    installed=$(du -sm "$venv/lib" | cut -f1)
    code=0
    (cd "$area" && env -u PYTHONPATH HOME="$area/home-$tag" REPLAY_CACHE="$area/cache-$tag" \
        "$venv/bin/replay" demo --plain -o "demo-$tag" >"$area/out" 2>"$area/errors") || code=$?
    compiled=$(grep -ci compil "$area/errors" || true)
    kept=$( (find "$area/cache-$tag" -name "*.kernel" 2>/dev/null || true) | wc -l)
    echo "$tag: $installed MB installed; the demo: exit code $code, $compiled lines about compiling, $kept kernels compiled"
    if [ "$code" -eq 0 ] && [ "$compiled" -eq 0 ] && [ "$kept" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); tail -n 20 "$area/out" "$area/errors"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
