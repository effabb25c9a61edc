// y[i] = x[i] + rows[i mod period] over vec4s: a table of rows (learned positions) added to every element of a batch.
// x and y [batch, period], rows [period]. Grid: one invocation per vec4. Any adapter; bound by loads and stores.
#include "lib/invocation.wgsl"
struct P { n: u32, period: u32 }   // both in vec4s
@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> rows: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  y[i] = x[i] + rows[i % p.period];
}
