// out = f(x, y, s) over vec4s. F 0: x + y, 1: s x, 2: s, 3: x gelu'(y).
// Grid: one invocation per vec4. Any adapter; bound by loads and stores (3 to 6 GB/s on lavapipe).
#include "lib/gelu.wgsl"
#include "lib/invocation.wgsl"
struct P { n: u32, s: f32 }
@group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(1) var<uniform> p: P;
#if F != 2
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
#end
#if F == 0 || F == 3
@group(0) @binding(3) var<storage, read> y: array<vec4f>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
#if F == 0
  out[i] = x[i] + y[i];
#end
#if F == 1
  out[i] = p.s * x[i];
#end
#if F == 2
  out[i] = vec4f(p.s);
#end
#if F == 3
  out[i] = x[i] * gelu_slope(y[i]);
#end
}
