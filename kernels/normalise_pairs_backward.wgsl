// Gradient through normalise_pairs.wgsl: dx_r = inverse_r (du_r - u_r (u_r . du_r)), without the second term where the norm was clamped.
// u, du [2 rows, width], da, db [rows, width] in vec4s where VEC. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, width: u32 }
@group(0) @binding(0) var<storage, read> u: array<V>;
@group(0) @binding(1) var<storage, read> du: array<V>;
@group(0) @binding(2) var<storage, read> inverse: array<f32>;
@group(0) @binding(3) var<storage, read_write> da: array<V>;
@group(0) @binding(4) var<storage, read_write> db: array<V>;
@group(0) @binding(5) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= 2u * p.rows) { return; }
  let lane = lane_of(local);
  let base = row * p.width;
  var sum = 0.0;
  for (var i = lane; i < p.width; i += LANES) { sum += inner(u[base + i], du[base + i]); }
  let scale = inverse[row];
  let along = row_sum(sum, lane) * select(0.0, 1.0, scale < 9.9e7);
  for (var i = lane; i < p.width; i += LANES) {
    let v = (du[base + i] - u[base + i] * along) * scale;
    if (row < p.rows) { da[base + i] = v; } else { db[base - p.rows * p.width + i] = v; }
  }
}
