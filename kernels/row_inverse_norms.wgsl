// inverse[r] = 1 / max(||a_r||, 1e-8) for the rows of a, then of b: what cosine similarity divides by. Both families (lib/rows.wgsl).
// a, b [rows, width] in vec4s where VEC; inverse [2 rows].
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, width: u32 }
@group(0) @binding(0) var<storage, read> a: array<V>;
@group(0) @binding(1) var<storage, read> b: array<V>;
@group(0) @binding(2) var<storage, read_write> inverse: array<f32>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= 2u * p.rows) { return; }
  let lane = lane_of(local);
  var sum = 0.0;
  if (row < p.rows) {
    for (var i = lane; i < p.width; i += LANES) { sum += square(a[row * p.width + i]); }
  } else {
    for (var i = lane; i < p.width; i += LANES) { sum += square(b[(row - p.rows) * p.width + i]); }
  }
  let total = row_sum(sum, lane);
  if (lane == 0u) { inverse[row] = 1.0 / max(sqrt(total), 1e-8); }
}
