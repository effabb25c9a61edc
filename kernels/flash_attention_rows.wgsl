// First of the three launches of flash attention's gradient: stats[b, h, t] = (logsumexp, dot(dy, y)) of each query. That product is the sum over keys of
// weight times its gradient, with dropout too, which the gradient of the softmax subtracts. Grid: one invocation per query and head (lib/invocation.wgsl).
// Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, T: u32, heads: u32, y_batch: u32, y_head: u32, y_row: u32, d4: u32 }
@group(0) @binding(0) var<storage, read> dy: array<vec4f>;
@group(0) @binding(1) var<storage, read> y: array<vec4f>;
@group(0) @binding(2) var<storage, read> logsumexp: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  let z = i / p.T;
  let at = (z / p.heads) * p.y_batch + (z % p.heads) * p.y_head + (i % p.T) * p.y_row;
  var sum = vec4f();
  for (var c = 0u; c < p.d4; c++) { sum = fma(dy[at + c], y[at + c], sum); }
  stats[i] = vec2f(logsumexp[i], dot(sum, vec4f(1.0)));
}
