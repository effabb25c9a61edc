// One term of a weighted sum of tensors: y = weights[index] x, added to what y holds where ADD. n vec4s. Grid: one invocation per vec4. Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, index: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(w, local);
  if (i >= p.n) { return; }
#if ADD
  y[i] += weights[p.index] * x[i];
#else
  y[i] = weights[p.index] * x[i];
#end
}
