// NT-Xent, per anchor i of n = 2 B: logsumexp over all j != i of logits[i, j], and losses[i] = that - logits[i, partner], partner = (i + B) mod 2 B.
// Rows from n up to `rows`, a multiple of 4, get a loss of zero, so that totals may read vec4s. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
struct P { n: u32, rows: u32 }
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> logsumexp: array<f32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.rows) { return; }
  let lane = lane_of(local);
  if (row >= p.n) {
    if (lane == 0u) { losses[row] = 0.0; }
    return;
  }
  let base = row * p.n;
  var best = -1e30;
  for (var j = lane; j < p.n; j += LANES) { best = max(best, select(logits[base + j], -1e30, j == row)); }
  let top = row_max(best, lane);
  var sum = 0.0;
  for (var j = lane; j < p.n; j += LANES) { sum += select(exp(logits[base + j] - top), 0.0, j == row); }
  let total = row_sum(sum, lane);
  if (lane == 0u) {
    let value = top + log(total);
    logsumexp[row] = value;
    losses[row] = value - logits[base + (row + p.n / 2u) % p.n];
  }
}
