// norm[0] = sqrt(sum of part[0 .. n)). Grid: overRows of one row. Any adapter.
#include "lib/rows.wgsl"
struct P { n: u32 }
@group(0) @binding(0) var<storage, read> part: array<f32>;
@group(0) @binding(1) var<storage, read_write> norm: array<f32>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let lane = lane_of(local);
  if (row_of(wg, local) > 0u) { return; }
  // Four sums, so that neighbouring additions do not wait for each other.
  var sum = vec4f();
  for (var i = 4u * lane; i < p.n; i += 4u * LANES) {
    let last = p.n - 1u;
    let v = vec4f(part[i], part[min(i + 1u, last)], part[min(i + 2u, last)], part[min(i + 3u, last)]);
    sum += select(vec4f(), v, vec4u(i) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.n));
  }
  let total = row_sum((sum.x + sum.y) + (sum.z + sum.w), lane);
  if (lane == 0u) { norm[0] = sqrt(total); }
}
