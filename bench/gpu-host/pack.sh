#!/usr/bin/env bash
# Packs the report of a GPU and all that it needs into one archive for Linux x64 machines without Node and without a network.
#   bench/gpu-host/pack.sh [OUT_DIR]      writes OUT_DIR/gpu-host.tar.xz (default: dist); after `node build.mjs`, on Debian or Ubuntu with apt
#   bench/gpu-host/pack.sh --list         only says what would be packed, and from where
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
webgpu=$root/node_modules/webgpu

# The Vulkan loader, and what NVIDIA's Vulkan driver links with, which bare machines may lack. The machine's own come first: see run.sh.
packages=(libvulkan1 libx11-6 libxext6 libxcb1 libxau6 libxdmcp6 libbsd0 libmd0)

# Place in the archive, and source.
files() {
  printf '%s\t%s\n' \
    run.sh "$root/bench/gpu-host/run.sh" README.md "$root/bench/gpu-host/README.md" LICENSE "$root/LICENSE" THIRD_PARTY.md "$root/THIRD_PARTY.md" \
    node "$(readlink -f "$(command -v node)")" gpu-host.js "$root/dist/bench/gpu-host.js" package.json "$root/package.json" \
    node_modules/webgpu/dist/linux-x64/dawn.node "$webgpu/dist/linux-x64/dawn.node" \
    node_modules/webgpu/index.js "$webgpu/index.js" node_modules/webgpu/package.json "$webgpu/package.json" node_modules/webgpu/LICENSE.md "$webgpu/LICENSE.md"
  for case in "$root"/test/golden/*.safetensors; do printf '%s\t%s\n' "golden/$(basename "$case")" "$case"; done
  for package in "${packages[@]}"; do printf '%s\t%s\n' "lib/" "package $package"; done
}

if [ "${1:-}" = --list ]; then files; exit; fi
case "$(uname -sm)" in 'Linux x86_64') ;; *) echo "pack.sh: the archive is for Linux x64 and is packed on one" >&2; exit 1;; esac
for tool in strip xz dpkg-deb apt-get; do command -v "$tool" > /dev/null || { echo "pack.sh: $tool is missing (packages binutils, xz-utils, dpkg, apt)" >&2; exit 1; }; done

out=$(mkdir -p "${1:-$root/dist}" && cd "${1:-$root/dist}" && pwd)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
top=$stage/gpu-host
mkdir -p "$top/lib" "$stage/debs" "$stage/unpacked"

while IFS=$'\t' read -r to from; do
  case $from in
    'package '*) continue;;
  esac
  [ -f "$from" ] || { echo "pack.sh: $from is missing; run \`npm ci\` and \`node build.mjs\` first" >&2; exit 1; }
  mkdir -p "$top/$(dirname "$to")"
  # Symbols are a quarter of these two.
  case $to in node|*.node) strip -o "$top/$to" "$from";; *) cp "$from" "$top/$to";; esac
done < <(files)
chmod 755 "$top/node" "$top/run.sh"

# apt's own sources; run `apt-get update` first if it knows none of these.
(cd "$stage/debs" && apt-get download "${packages[@]}" > /dev/null)
for deb in "$stage"/debs/*.deb; do dpkg-deb -x "$deb" "$stage/unpacked"; done
# By the names that programs ask for, such as libvulkan.so.1.
find "$stage/unpacked" -regex '.*/lib[^/]*\.so\.[0-9]+' | while read -r library; do cp -L "$library" "$top/lib/"; done
mkdir -p "$top/lib/licences"
for package in "${packages[@]}"; do cp -L "$stage/unpacked/usr/share/doc/$package/copyright" "$top/lib/licences/$package" 2> /dev/null || true; done
[ -e "$top/lib/libvulkan.so.1" ] || { echo "pack.sh: package libvulkan1 holds no libvulkan.so.1" >&2; exit 1; }

tar -C "$stage" --owner=0 --group=0 --sort=name -cf - gpu-host | xz -T0 -6 > "$out/gpu-host.tar.xz"
echo "$out/gpu-host.tar.xz: $(du -h "$out/gpu-host.tar.xz" | cut -f1), $(find "$top" -type f | wc -l) files, unpacked $(du -sh "$top" | cut -f1)"
