// ds = p * (dp - sum over keys of p dp), in place over dp. Masked keys and padding have p = 0, hence ds = 0. Rows as in attention_softmax.
// Grid: overRows. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
struct P { rows: u32, pitch4: u32 }
@group(0) @binding(0) var<storage, read> probabilities: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> d: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(wg, local);
  if (row >= p.rows) { return; }
  let lane = lane_of(local);
  let base = row * p.pitch4;
  var sum = vec4f();
  for (var i = lane; i < p.pitch4; i += LANES) { sum = fma(probabilities[base + i], d[base + i], sum); }
  let mean = row_sum(dot(sum, vec4f(1.0)), lane);
  for (var i = lane; i < p.pitch4; i += LANES) { d[base + i] = probabilities[base + i] * (d[base + i] - mean); }
}
