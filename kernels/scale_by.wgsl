// y = x max(coefficient[0], 0). Grid: one invocation per vec4. Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> coefficient: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  y[i] = x[i] * max(coefficient[0], 0.0);
}
