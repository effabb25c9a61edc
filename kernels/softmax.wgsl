// Softmax (LOG 0) or log-softmax (LOG 1) of every row: y = exp(x - max) / sum, or x - max - log(sum). Both families (lib/rows.wgsl).
// x, y [rows, width] in vec4s where VEC.
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, width: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
@group(0) @binding(1) var<storage, read_write> y: array<V>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.rows) { return; }
  let lane = lane_of(local);
  let base = row * p.width;
  var best = V(-3e38);
  for (var i = lane; i < p.width; i += LANES) { best = max(best, x[base + i]); }
  let top = row_max(largest(best), lane);
  var sum = V();
#if LOG
  for (var i = lane; i < p.width; i += LANES) { sum += exp(x[base + i] - top); }
  let shift = top + log(row_sum(across(sum), lane));
  for (var i = lane; i < p.width; i += LANES) { y[base + i] = x[base + i] - shift; }
#else
  for (var i = lane; i < p.width; i += LANES) {
    let e = exp(x[base + i] - top);
    y[base + i] = e;
    sum += e;
  }
  let scale = 1.0 / row_sum(across(sum), lane);
  for (var i = lane; i < p.width; i += LANES) { y[base + i] *= scale; }
#end
}
