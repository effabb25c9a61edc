// Masked InfoNCE, step 2: per anchor the cross-entropy of candidate 0 and whether it beats every negative (a tie does not count).
//   losses[n] = weight (logsumexp(logits[n]) - logits[n, 0])    hits[n] = weight (logits[n, 0] > all others)    stats[n] = (logsumexp, weight)
// Rows past the last anchor, up to a multiple of 4, get zeros, so that totals may read vec4s. logits [anchors, stride4] in vec4s. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
struct P { anchors: u32, rows: u32, stride4: u32 }
@group(0) @binding(0) var<storage, read> logits: array<vec4f>;
#if WEIGHTS
@group(0) @binding(1) var<storage, read> weights: array<f32>;
#end
@group(0) @binding(2) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> hits: array<f32>;
@group(0) @binding(5) var<storage, read_write> counted: array<f32>;
@group(0) @binding(6) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.rows) { return; }
  let lane = lane_of(local);
  if (row >= p.anchors) {
    if (lane == 0u) {
      losses[row] = 0.0;
      hits[row] = 0.0;
      counted[row] = 0.0;
    }
    return;
  }
  let base = row * p.stride4;
  var best = vec4f(-1e30);
  for (var i = lane; i < p.stride4; i += LANES) {
    var v = logits[base + i];
    if (i == 0u) { v.x = -1e30; }
    best = max(best, v);
  }
  let other = row_max(max(max(best.x, best.y), max(best.z, best.w)), lane);
  let positive = logits[base].x;
  let top = max(positive, other);
  var sum = vec4f();
  for (var i = lane; i < p.stride4; i += LANES) { sum += exp(logits[base + i] - top); }
  let total = row_sum((sum.x + sum.y) + (sum.z + sum.w), lane);
  if (lane == 0u) {
#if WEIGHTS
    let weight = weights[row];
#else
    let weight = 1.0;
#end
    let logsumexp = top + log(total);
    stats[row] = vec2f(logsumexp, weight);
    losses[row] = weight * (logsumexp - positive);
    hits[row] = select(0.0, weight, positive > other);
    counted[row] = weight;
  }
}
