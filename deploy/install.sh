#!/bin/sh
# install.sh SOURCE: what an image needs, as root: replay in /opt/replay, its kernels compiled in /opt/replay-cache,
# and the user "replay" with a folder /work to write to.
# SOURCE is a checkout. A wheel for this Python in its dist/ is preferred: its kernels are compiled already.
set -eu
source=$1
python=$(python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
python3 -m venv /opt/replay
pip="/opt/replay/bin/python -m pip --disable-pip-version-check --quiet"
$pip install --no-cache-dir -r "$source/requirements.lock"
set -- "$source"/dist/replay_engine-*-"$python"-"$python"-*.whl
if [ -f "$1" ]; then
    $pip install --no-cache-dir --no-deps "$1"
else
    $pip install --no-cache-dir --no-deps "$source"
fi
useradd --create-home --uid 10001 replay
install -d -o replay -g replay /work
# The cache belongs to root and is readable by all: every user of the image can use it, but not change it.
REPLAY_CACHE=/opt/replay-cache /opt/replay/bin/replay doctor --warm
chmod -R go+rX /opt/replay-cache
