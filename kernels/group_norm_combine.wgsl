// Merges what group_norm.wgsl computed per (batch, block, channel) over the blocks and channels of a group. first, second [B, blocks, C]:
//   BACK 0  means and sums of squared deviations -> stats [B, G] = (shift, centre, 1 / sqrt(var + eps), 0)  (Chan, Golub, LeVeque 1979)
//   BACK 1  sums of dz and dz xh -> sums [B, G] = (sum of dz weight, sum of dz weight xh)
// Grid: overRows of B * G. Any adapter.
#include "lib/rows.wgsl"
struct P { rows: u32, groups: u32, channels: u32, blocks: u32, steps: u32, block: u32, eps: f32 }   // channels: C / G
@group(0) @binding(0) var<storage, read> first: array<f32>;
@group(0) @binding(1) var<storage, read> second: array<f32>;
@group(0) @binding(2) var<uniform> p: P;
#if BACK
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec2f>;
#else
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec4f>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(wg, local);
  let lane = lane_of(local);
  if (row >= p.rows) { return; }
  let b = row / p.groups;
  let c0 = (row % p.groups) * p.channels;
  let C = p.groups * p.channels;
  let n = p.blocks * p.channels;
#if BACK
  var sum = vec2f();
  for (var i = lane; i < n; i += LANES) {
    let c = c0 + i % p.channels;
    let at = (b * p.blocks + i / p.channels) * C + c;
    sum += weight[c] * vec2f(first[at], second[at]);
  }
  let total = vec2f(row_sum(sum.x, lane), row_sum(sum.y, lane));
  if (lane == 0u) { sums[row] = total; }
#else
  let elements = f32(p.steps) * f32(p.channels);
  var sum = 0.0;
  for (var i = lane; i < n; i += LANES) {
    let block = i / p.channels;
    let count = f32(min(p.block, p.steps - block * p.block));
    sum += count * first[(b * p.blocks + block) * C + c0 + i % p.channels];
  }
  let centre = row_sum(sum, lane) / elements;
  sum = 0.0;
  for (var i = lane; i < n; i += LANES) {
    let block = i / p.channels;
    let at = (b * p.blocks + block) * C + c0 + i % p.channels;
    let count = f32(min(p.block, p.steps - block * p.block));
    let off = first[at] - centre;
    sum += second[at] + count * off * off;
  }
  let variance = row_sum(sum, lane) / elements;
  if (lane == 0u) { stats[row] = vec4f(x[b * p.steps * C + c0], centre, 1.0 / sqrt(variance + p.eps), 0.0); }
#end
}
