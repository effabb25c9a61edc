// part[base + e] = sum of x^2 over the vec4s of invocation e: run e of `count` neighbouring vec4s on CPU adapters (step 1), every step-th one on GPUs.
// Grid: one invocation per partial sum. Any adapter. A partial last vec4 is cut at `elements`.
#include "lib/invocation.wgsl"
struct P { n: u32, elements: u32, parts: u32, base: u32, per: u32, step: u32, count: u32 }   // n: vec4s; run e starts at e * per
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> part: array<f32>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.parts) { return; }
  var sum = vec4f();
  var i = e * p.per;
  for (var k = 0u; k < p.count && i < p.n; k++) {
    let v = select(vec4f(), x[i], vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.elements));
    sum += v * v;
    i += p.step;
  }
  part[p.base + e] = (sum.x + sum.y) + (sum.z + sum.w);
}
