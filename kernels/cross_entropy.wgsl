// Per row: logsumexp of the logits, losses = logsumexp - logits[target], counted = 1; both 0 where the target is the one to ignore, and in rows from
// `rows` up to `padded`, a multiple of 4, so that totals may read vec4s. logits [rows, width] in vec4s where VEC. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, padded: u32, width: u32, classes: i32, ignored: i32 }
@group(0) @binding(0) var<storage, read> logits: array<V>;
@group(0) @binding(1) var<storage, read> targets: array<i32>;
@group(0) @binding(2) var<storage, read_write> logsumexp: array<f32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> counted: array<f32>;
@group(0) @binding(5) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.padded) { return; }
  let lane = lane_of(local);
  if (row >= p.rows) {
    if (lane == 0u) {
      losses[row] = 0.0;
      counted[row] = 0.0;
    }
    return;
  }
  let base = row * p.width;
  var best = V(-3e38);
  for (var i = lane; i < p.width; i += LANES) { best = max(best, logits[base + i]); }
  let top = row_max(largest(best), lane);
  var sum = V();
  for (var i = lane; i < p.width; i += LANES) { sum += exp(logits[base + i] - top); }
  let total = row_sum(across(sum), lane);
  if (lane == 0u) {
    let value = top + log(total);
    let label = targets[row];
    let used = label != p.ignored;
    let at = u32(clamp(label, 0, p.classes - 1));
#if VEC
    let logit = logits[base + at / 4u][at % 4u];
#else
    let logit = logits[base + at];
#end
    logsumexp[row] = value;
    losses[row] = select(0.0, value - logit, used);
    counted[row] = select(0.0, 1.0, used);
  }
}
