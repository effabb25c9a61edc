// dx[b, t] = mask[b, t] up[b] / counts[b] (masked_mean.wgsl). Rows (b, t) of `width` vec4s (f32s without VEC). Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, time: u32, width: u32 }
@group(0) @binding(0) var<storage, read> up: array<V>;
#if MASK
@group(0) @binding(1) var<storage, read> mask: array<f32>;
#end
@group(0) @binding(2) var<storage, read> counts: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<V>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.rows) { return; }
  let b = row / p.time;
#if MASK
  let scale = mask[row] / counts[b];
#else
  let scale = 1.0 / counts[b];
#end
  for (var i = lane_of(local); i < p.width; i += LANES) { dx[row * p.width + i] = up[b * p.width + i] * scale; }
}
