// u[r] = x_r / max(||x_r||, 1e-8) for the rows of a, then of b, and inverse[r] = 1 / max(||x_r||, 1e-8). Both families (lib/rows.wgsl).
// a, b [rows, width], u [2 rows, width] in vec4s where VEC.
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, width: u32 }
@group(0) @binding(0) var<storage, read> a: array<V>;
@group(0) @binding(1) var<storage, read> b: array<V>;
@group(0) @binding(2) var<storage, read_write> u: array<V>;
@group(0) @binding(3) var<storage, read_write> inverse: array<f32>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= 2u * p.rows) { return; }
  let lane = lane_of(local);
  let second = row >= p.rows;
  let start = select(row, row - p.rows, second) * p.width;
  var sum = 0.0;
  for (var i = lane; i < p.width; i += LANES) {
    var v = V();
    if (second) { v = b[start + i]; } else { v = a[start + i]; }
    u[row * p.width + i] = v;
    sum += square(v);
  }
  let scale = 1.0 / max(sqrt(row_sum(sum, lane)), 1e-8);
  for (var i = lane; i < p.width; i += LANES) { u[row * p.width + i] *= scale; }
  if (lane == 0u) { inverse[row] = scale; }
}
