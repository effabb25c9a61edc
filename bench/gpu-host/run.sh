#!/bin/sh
# Runs the report where it was unpacked. Options are those of the report: see README.md beside this file.
here=$(cd "$(dirname "$0")" && pwd)

# Libraries that this machine lacks, and none that it has: a loader of its own knows its driver better.
links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
known=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2> /dev/null)
for library in "$here"/lib/*.so.*; do
  name=$(basename "$library")
  printf '%s' "$known" | grep -q "^[[:space:]]*$name " || ln -s "$library" "$links/$name"
done
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$links
export LD_LIBRARY_PATH

# The loader looks into /etc and /usr/share; containers may have NVIDIA's driver elsewhere.
if [ -z "${VK_DRIVER_FILES:-}" ] && ! ls /etc/vulkan/icd.d/nvidia*.json /usr/share/vulkan/icd.d/nvidia*.json > /dev/null 2>&1; then
  for manifest in /usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json /usr/local/share/vulkan/icd.d/nvidia_icd.json; do
    if [ -e "$manifest" ]; then VK_DRIVER_FILES=$manifest; export VK_DRIVER_FILES; fi
  done
fi

echo "libraries added: $(ls "$links" | tr '\n' ' ')${VK_DRIVER_FILES:+; Vulkan driver: $VK_DRIVER_FILES}"
"$here/node" "$here/gpu-host.js" "$@"
