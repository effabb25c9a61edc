// NT-Xent backward: what the product of u_i and u_j contributes, both as anchor and as candidate (logits are symmetric):
//   g[i, j] = scale up (softmax_i[j] + softmax_j[i] - 2 [j is i's partner]), 0 on the diagonal; then du = g u. Grid: n^2 invocations. Both families.
#include "lib/invocation.wgsl"
struct P { n: u32, scale: f32 }
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> logsumexp: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> g: array<f32>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  if (id >= p.n * p.n) { return; }
  let i = id / p.n;
  let j = id % p.n;
  let logit = logits[id];
  // An overflow of exp on the diagonal, which no logsumexp covers, is not selected.
  let both = exp(min(logit - logsumexp[i], 0.0)) + exp(min(logit - logsumexp[j], 0.0)) - select(0.0, 2.0, j == (i + p.n / 2u) % p.n);
  g[id] = select(both * p.scale * up[0], 0.0, i == j);
}
