// sum = keep * sum + x over vec4s, in place: gradients of micro-batches; keep is 0 for the first of them, and then the old sum counts for nothing even
// where it is infinite (the step before overflowed). Grid: one invocation per vec4. Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, keep: f32 }
@group(0) @binding(0) var<storage, read_write> sum: array<vec4f>;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  sum[i] = select(fma(vec4f(p.keep), sum[i], x[i]), x[i], p.keep == 0.0);
}
