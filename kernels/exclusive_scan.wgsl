// offsets[i] = sum of counts[0 .. i - 1], for i = 0 .. n. One workgroup: a lane sums a run of counts, the lanes' sums are scanned, the lane walks its run again.
// On CPU adapters one invocation does it all (lib/rows.wgsl: LANES 1).
#include "lib/rows.wgsl"
struct P { n: u32 }
@group(0) @binding(0) var<storage, read> counts: array<u32>;
@group(0) @binding(1) var<storage, read_write> offsets: array<u32>;
@group(0) @binding(2) var<uniform> p: P;
#if LANES > 1
var<workgroup> sums: array<u32, ${LANES}>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  if (row_of(w, local) >= 1u) { return; }
  let lane = lane_of(local);
  let per = (p.n + LANES - 1u) / LANES;
  let first = min(p.n, lane * per);
  let end = min(p.n, first + per);
  var run = 0u;
#if LANES > 1
  var sum = 0u;
  for (var i = first; i < end; i++) { sum += counts[i]; }
  sums[lane] = sum;
  workgroupBarrier();
  for (var i = 0u; i < lane; i++) { run += sums[i]; }
#end
  for (var i = first; i < end; i++) {
    offsets[i] = run;
    run += counts[i];
  }
  if (lane == LANES - 1u) { offsets[p.n] = run; }
}
