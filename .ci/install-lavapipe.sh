#!/usr/bin/env bash
# Installs Mesa's lavapipe (Vulkan in software) in a version that Dawn accepts: 23 or newer.
# Debian 12 has an older one, so it comes from that release's backports, on the mirror that apt already uses. Needs root.
set -euo pipefail
wanted=23

version() { dpkg-query -W -f='${Version}' mesa-vulkan-drivers 2>/dev/null || true; }
enough() { [ -n "$1" ] && [ "$1" != '(none)' ] && dpkg --compare-versions "$1" ge "$wanted"; }
candidate() { LC_ALL=C apt-cache policy mesa-vulkan-drivers | awk '/Candidate:/ {print $2}'; }

installed=$(version)
if enough "$installed"; then
  echo "lavapipe: mesa-vulkan-drivers $installed is there"
  exit 0
fi
command -v apt-get >/dev/null || { echo "lavapipe: no apt-get here; install Mesa $wanted or newer by the system's own means" >&2; exit 1; }
run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Address of the mirror: from deb822 files, else from one-line sources.
mirror() {
  local files
  shopt -s nullglob
  files=(/etc/apt/sources.list.d/*.sources)
  if [ ${#files[@]} -gt 0 ]; then
    # The first stanza that serves the release itself, not its security updates.
    awk 'BEGIN { RS = ""; FS = "\n" }
      { uri = ""; suites = ""; off = 0
        for (i = 1; i <= NF; i++) {
          if ($i ~ /^URIs:/) { split($i, u, /[ \t]+/); uri = u[2] }
          if ($i ~ /^Suites:/) suites = $i
          if (tolower($i) ~ /^enabled:[ \t]*no/) off = 1
        }
        if (!off && uri != "" && suites !~ /security/) { print uri; exit } }' "${files[@]}" | grep . && return
  fi
  files=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list)
  sed -n 's/^deb[ \t]\+\(\[[^]]*\][ \t]*\)\?\([^ \t]\+\)[ \t].*/\2/p' "${files[@]}" 2>/dev/null | grep -v security | head -n 1 | grep .
}

run apt-get update -qq
from=()
if ! enough "$(candidate)"; then
  . /etc/os-release
  suite="${VERSION_CODENAME:?the system names no release}-backports"
  uri=$(mirror) || { echo "lavapipe: apt's sources name no mirror" >&2; exit 1; }
  echo "deb $uri $suite main" | run tee /etc/apt/sources.list.d/mgf-backports.list >/dev/null
  run apt-get update -qq
  from=(-t "$suite")
fi
run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${from[@]}" mesa-vulkan-drivers >/dev/null
run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libvulkan1 >/dev/null
installed=$(version)
enough "$installed" || { echo "lavapipe: only mesa-vulkan-drivers ${installed:-none} could be installed, $wanted is needed" >&2; exit 1; }
echo "lavapipe: mesa-vulkan-drivers $installed installed"
