// Gradient of softmax.wgsl from its output: dx = y (dy - sum(dy y)), or for log-softmax (LOG 1) dx = dy - exp(y) sum(dy). Both families (lib/rows.wgsl).
// y, dy, dx [rows, width] in vec4s where VEC.
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, width: u32 }
@group(0) @binding(0) var<storage, read> y: array<V>;
@group(0) @binding(1) var<storage, read> dy: array<V>;
@group(0) @binding(2) var<storage, read_write> dx: array<V>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.rows) { return; }
  let lane = lane_of(local);
  let base = row * p.width;
  var sum = V();
#if LOG
  for (var i = lane; i < p.width; i += LANES) { sum += dy[base + i]; }
  let total = row_sum(across(sum), lane);
  for (var i = lane; i < p.width; i += LANES) { dx[base + i] = dy[base + i] - exp(y[base + i]) * total; }
#else
  for (var i = lane; i < p.width; i += LANES) { sum = fma(dy[base + i], y[base + i], sum); }
  let total = row_sum(across(sum), lane);
  for (var i = lane; i < p.width; i += LANES) { dx[base + i] = y[base + i] * (dy[base + i] - total); }
#end
}
