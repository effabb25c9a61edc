// Masked InfoNCE backward, step 1: what every pair (anchor n, candidate j) contributes, with a = (softmax_j - [j = 0]) weight_n up / denominator:
//   pairs[n, j] = (frame of the candidate, b = a / (temperature |c_n| |z_j|), t = a logit_nj, frame of the anchor)      b, t as bits
// so that dc_n = sum_j b z_j - (sum_j t) c_n / |c_n|^2 and likewise dz (info_nce_gather.wgsl). Grid: anchors * stride invocations. Both families.
#include "lib/invocation.wgsl"
struct P { anchors: u32, frames: u32, negatives: u32, stride: u32, inverse_temperature: f32 }
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;
@group(0) @binding(2) var<storage, read> inverse: array<f32>;
@group(0) @binding(3) var<storage, read> anchor: array<i32>;
@group(0) @binding(4) var<storage, read> negatives: array<i32>;
@group(0) @binding(5) var<storage, read> up: array<f32>;
@group(0) @binding(6) var<storage, read> denominator: array<f32>;
@group(0) @binding(7) var<storage, read_write> pairs: array<vec4u>;
@group(0) @binding(8) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let n = id / p.stride;
  let j = id % p.stride;
  if (n >= p.anchors || j > p.negatives) { return; }
  let own = u32(anchor[n]);
  var frame = own;
  if (j > 0u) { frame = u32(negatives[n * p.negatives + j - 1u]); }
  let stat = stats[n];
  let logit = logits[id];
  let a = (exp(logit - stat.x) - select(0.0, 1.0, j == 0u)) * stat.y * up[0] / denominator[0];
  let b = a * p.inverse_temperature * inverse[own] * inverse[p.frames + frame];
  pairs[id] = vec4u(frame, bitcast<u32>(b), bitcast<u32>(a * logit), own);
}
