#!/usr/bin/env bash
# Installs Chromium and Firefox ESR from the release of Debian that apt already uses, for `npm run test:runtimes`. Needs root.
set -euo pipefail
command -v apt-get >/dev/null || { echo "browsers: no apt-get here; install Chromium and Firefox by the system's own means" >&2; exit 1; }
run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
command -v firefox-esr >/dev/null || wanted+=(firefox-esr)
if [ ${#wanted[@]} -gt 0 ]; then
  run apt-get update -qq
  run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
fi
for browser in chromium firefox-esr; do
  echo "browsers: $browser $(dpkg-query -W -f='${Version}' "$browser") is there"
done
