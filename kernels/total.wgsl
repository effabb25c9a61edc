// Second pass of a loss: total = sum of values / denominator, with denominator = max(scale * (sum of weights, or 1 without WEIGHTS), floor).
// values, weights: n numbers, n a multiple of 4. One row of lib/rows.wgsl: one invocation on CPU adapters, one workgroup on GPUs.
#include "lib/rows.wgsl"
struct P { n4: u32, scale: f32, floor: f32 }
@group(0) @binding(0) var<storage, read> values: array<vec4f>;
#if WEIGHTS
@group(0) @binding(1) var<storage, read> weights: array<vec4f>;
#end
@group(0) @binding(2) var<storage, read_write> total: array<f32>;
@group(0) @binding(3) var<storage, read_write> denominator: array<f32>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  if (row_of(w, local) >= 1u) { return; }
  let lane = lane_of(local);
  var v = vec4f();
  var q = vec4f();
  for (var i = lane; i < p.n4; i += LANES) {
    v += values[i];
#if WEIGHTS
    q += weights[i];
#end
  }
  let sum = row_sum((v.x + v.y) + (v.z + v.w), lane);
#if WEIGHTS
  let weight = row_sum((q.x + q.y) + (q.z + q.w), lane);
#else
  let weight = 1.0;
#end
  if (lane == 0u) {
    let d = max(p.scale * weight, p.floor);
    denominator[0] = d;
    total[0] = sum / d;
  }
}
