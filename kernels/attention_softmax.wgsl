// Softmax of attention scores over the keys, in place. A row (b, h, t) has `keys` scores in a pitch of `pitch4` vec4s; keys whose mask is 0 and the
// padding up to the pitch become 0. A row with every key masked becomes all 0 rather than NaN.
// MASK: key_mask f32 [B, keys]; rows_per_mask = H T rows share one line of it. Grid: overRows. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
struct P { rows: u32, keys: u32, pitch4: u32, rows_per_mask: u32 }
@group(0) @binding(0) var<storage, read_write> scores: array<vec4f>;
@group(0) @binding(1) var<uniform> p: P;
#if MASK
@group(0) @binding(2) var<storage, read> key_mask: array<f32>;
#end

// 1 for a real key, 0 for masked ones and padding.
fn real(row: u32, i: u32) -> vec4f {
  let key = vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u);
  let inside = select(vec4f(0.0), vec4f(1.0), key < vec4u(p.keys));
#if MASK
  let at = vec4u((row / p.rows_per_mask) * p.keys) + min(key, vec4u(p.keys - 1u));
  return inside * vec4f(key_mask[at.x], key_mask[at.y], key_mask[at.z], key_mask[at.w]);
#else
  return inside;
#end
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(wg, local);
  if (row >= p.rows) { return; }
  let lane = lane_of(local);
  let base = row * p.pitch4;
  var top = vec4f(-1e30);
  for (var i = lane; i < p.pitch4; i += LANES) { top = max(top, select(vec4f(-1e30), scores[base + i], real(row, i) > vec4f(0.5))); }
  let highest = row_max(max(max(top.x, top.y), max(top.z, top.w)), lane);
  var sum = vec4f();
  for (var i = lane; i < p.pitch4; i += LANES) {
    let e = select(vec4f(), exp(scores[base + i] - highest), real(row, i) > vec4f(0.5));
    scores[base + i] = e;
    sum += e;
  }
  let scale = 1.0 / max(row_sum(dot(sum, vec4f(1.0)), lane), 1e-30);
  for (var i = lane; i < p.pitch4; i += LANES) { scores[base + i] *= scale; }
}
