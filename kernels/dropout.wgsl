// y = x * factor (+ residual), factor 0 with probability p, else 1 / (1 - p), drawn from (seed, step, node, element): see lib/philox.wgsl.
// The gradient is the same launch on dy. Grid: one invocation per vec4. Any adapter.
#include "lib/invocation.wgsl"
#include "lib/philox.wgsl"
struct P { n: u32, seed_lo: u32, seed_hi: u32, step: u32, node: u32, threshold: u32, scale: f32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;
#if ADD
@group(0) @binding(3) var<storage, read> residual: array<vec4f>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  let v = x[i] * dropout_scale4(i, vec2u(p.seed_lo, p.seed_hi), p.step, p.node, p.threshold, p.scale);
#if ADD
  y[i] = v + residual[i];
#else
  y[i] = v;
#end
}
