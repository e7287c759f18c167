#!/usr/bin/env bash
# The step of action.yml: run `replay $COMMAND $ARGUMENTS`, with a summary, annotations, and its files in replay-results/.
set -uo pipefail
results=replay-results
mkdir -p "$results"
# Split the arguments as a shell does, with quotes, but expand nothing.
mapfile -d '' -t arguments < <(python3 -c 'import os, shlex, sys
sys.stdout.write("".join(word + "\0" for word in shlex.split(os.environ["ARGUMENTS"])))')
case "$COMMAND" in
    run) files=(-o "$results/run" --plain) ;;
    ab) files=(-o "$results/session" --markdown "$GITHUB_STEP_SUMMARY" --junit "$results/replay.xml" --html "$results/replay.html") ;;
    compare) files=(--markdown "$GITHUB_STEP_SUMMARY" --junit "$results/replay.xml" --html "$results/replay.html") ;;
    *) echo "::error title=replay::$COMMAND is not run, ab or compare"; exit 2 ;;
esac
replay "$COMMAND" "${arguments[@]}" "${files[@]}" | tee "$results/output.txt"
code=${PIPESTATUS[0]}
echo "code=$code" >> "$GITHUB_OUTPUT"
if [ "$COMMAND" = run ] && [ -f "$results/run/run.json" ]; then
    { echo '```'; replay report "$results/run" | head -n 200; echo '```'; } >> "$GITHUB_STEP_SUMMARY"
    replay report "$results/run" --html "$results/replay.html" || true
    case $code in
        99) echo "::error title=replay::an objective was missed (exit code 99)" ;;
        4) echo "::error title=replay::INVALID: the generator was the bottleneck (exit code 4)" ;;
    esac
fi
exit "$code"
