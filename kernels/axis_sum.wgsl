// out[o, i] = sum over a of x[o, a, i]; x [outer, axis, inner]. Sums the gradient of a broadcast operand. Grid: one invocation per output. Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, axis: u32, inner: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let at = (e / p.inner) * p.axis * p.inner + e % p.inner;
  var sum = 0.0;
  for (var a = 0u; a < p.axis; a++) { sum += x[at + a * p.inner]; }
  out[e] = sum;
}
